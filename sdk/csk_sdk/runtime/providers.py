"""Execution providers: what else than the CPU's own kernels may compute predictions.

ONNX Runtime names them `OpenVINOExecutionProvider`; people write openvino. Only those of the installed package can be
chosen, none of them is taken unless it is asked for, and none that would send data away. A provider that cannot start
is an error, where ONNX Runtime itself would go on without a word, on the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from csk_sdk.errors import ConfigError
from csk_sdk.runtime.sessions import ON_CPU, Provider, load_onnxruntime

CPU = "CPUExecutionProvider"
_SUFFIX = "ExecutionProvider"
_REMOTE = "AzureExecutionProvider"
# By default newer GPUs round the factors of float32 products to 10 bits; nobody would take that for the same network.
_CUDA, _IN_FLOAT32, _SINCE = "CUDAExecutionProvider", {"use_tf32": "0"}, (1, 18)


def available() -> list[str]:
    """The providers of the installed ONNX Runtime that compute on this device, by ONNX Runtime's names."""
    return [name for name in load_onnxruntime().get_available_providers() if name != _REMOTE]


def find_providers(wanted: Sequence[Provider] | None, where: str = "providers") -> tuple[Provider, ...]:
    """Providers by ONNX Runtime's names, in the order of `wanted`; the CPU's own where that is None or empty.

    `wanted` has names in either form, in any case, or pairs of a name and options; cuda by name alone computes in
    float32 throughout. Raises ConfigError, `where` being
    what it calls them, for anything else and for what is not installed.
    """
    wanted = [wanted] if isinstance(wanted, str) else () if wanted is None else wanted
    if not isinstance(wanted, list | tuple):
        raise ConfigError(f"{where} is a {type(wanted).__name__}, and must be a list such as ['openvino'].")
    if all(isinstance(one, str) and short(one) == short(CPU) for one in wanted):
        return ON_CPU  # without a look at the runtime, which may not be installed
    there = {short(name): name for name in available()}
    found: list[Provider] = []
    for one in wanted:
        name, options = one if isinstance(one, tuple) and len(one) == 2 else (one, None)
        if not isinstance(name, str) or not isinstance(options, Mapping | None):
            raise ConfigError(
                f"{where} has {one!r}, and must have names such as 'openvino', or pairs of a name and its options."
            )
        if short(name) not in there:
            raise ConfigError(
                f"{where} has '{name}', which the ONNX Runtime of this environment does not have (it has "
                f"{', '.join(there)}). Packages with others are onnxruntime-openvino and onnxruntime-gpu (cuda): "
                "install one of them in place of this one."
            )
        full = there[short(name)]
        found.append(_as_float32(full) if options is None else (full, dict(options)))
    return tuple(found)


def short(name: str) -> str:
    """As people write it: openvino for OpenVINOExecutionProvider."""
    return name.removesuffix(_SUFFIX).lower()


def _as_float32(name: str) -> Provider:
    version = tuple(int(part) for part in load_onnxruntime().__version__.split(".")[:2])
    return (name, _IN_FLOAT32) if name == _CUDA and version >= _SINCE else name


def provider_names(providers: Sequence[Provider]) -> list[str]:
    """ONNX Runtime's names, without options."""
    return [one if isinstance(one, str) else one[0] for one in providers]
