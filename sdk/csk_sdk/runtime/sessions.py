"""ONNX Runtime: finding it, and opening graphs so that a small device has room for them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from threading import Event, Timer
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.errors import BundleError, CskError, RuntimeMissingError
from csk_sdk.runtime import int8_sums, telemetry
from csk_sdk.runtime.allocator import give_back, returning_memory
from csk_sdk.runtime.reasons import reason_of

_INFERENCE = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")
_TRAINING = ("onnxruntime-training", "onnxruntime-training-cpu")
_ERRORS_ONLY = 3

# An execution provider: its name, or the name and the provider's own options.
Provider = str | tuple[str, Mapping[str, Any]]
ON_CPU: tuple[Provider, ...] = ("CPUExecutionProvider",)


@cache
def installed_runtimes() -> dict[str, str]:
    """The ONNX Runtime distributions of this environment and their versions, read once."""
    found = {}
    for name in (*_INFERENCE, *_TRAINING):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def load_onnxruntime() -> Any:
    """Import onnxruntime.

    Raises RuntimeMissingError where none is installed, or two that overwrite each other's files.
    """
    found = installed_runtimes()
    if len(found) > 1:
        raise RuntimeMissingError(
            f"{' and '.join(found)} are both installed, and share one folder: each overwrites the other. "
            f"Uninstall both, then install one (pip uninstall {' '.join(found)})."
        )
    try:
        ort = import_module("onnxruntime")
        if telemetry.is_off():
            ort.disable_telemetry_events()  # what packages for Windows listen to
        return ort
    except ImportError as error:
        if found:
            name, version = next(iter(found.items()))
            raise RuntimeMissingError(
                f"{name} {version} is installed but cannot be imported ({str(error) or 'no reason given'}). Before "
                "1.19 it needs numpy<2; else install it again with pip install --force-reinstall 'csk-sdk[device]'."
            ) from None
        raise RuntimeMissingError(
            "ONNX Runtime is not installed: install it with pip install 'csk-sdk[device]'."
        ) from None


def has_training_package() -> bool:
    """Whether onnxruntime-training is what is installed."""
    return not set(installed_runtimes()).isdisjoint(_TRAINING)


def require_training_package() -> None:
    """Raise RuntimeMissingError where onnxruntime-training is not what is installed."""
    found = installed_runtimes()
    if has_training_package():
        return
    here = (
        f", and {' and '.join(found)} shares its folder: uninstall that first, or use" if found else ": use"
    )
    raise RuntimeMissingError(
        f"The ort-training backend needs onnxruntime-training, which is not installed here{here} an environment of "
        "its own with Python 3.11 or 3.12, and there pip install 'csk-sdk[ort-training]'."
    )


def import_training(module: str) -> Any:
    """Import `onnxruntime.training.<module>`: "api" on a device, "artifacts" on a workstation.

    `onnxruntime.training` itself imports torch, for parts of it that nothing here uses. A bare package of the
    same name and place, put where Python looks first, has the same modules without that.
    Raises RuntimeMissingError where the training package is not installed, or cannot be imported.
    """
    require_training_package()
    ort = load_onnxruntime()
    name = "onnxruntime.training"
    if name not in sys.modules:
        bare = ModuleType(name)
        bare.__path__ = [str(Path(ort.__file__).parent / "training")]
        sys.modules[name] = bare
    try:
        return import_module(f"{name}.{module}")
    except ImportError as error:
        raise RuntimeMissingError(
            f"onnxruntime-training {ort.__version__} is installed but its {module} module cannot be imported "
            f"({error}): install it again with pip install --force-reinstall 'csk-sdk[ort-training]'."
        ) from None


def session_options(threads: int = 0, optimised: bool = True, spinning: bool = False) -> Any:
    """How every session is opened; `threads` 0 is the runtime's default of one per core.

    Without `optimised`, kernels are neither flipped nor packed ahead: less memory, slower steps (decision 0003).
    `spinning` threads wait for their next piece of work by asking for it over and over, until the run ends.
    """
    ort = load_onnxruntime()
    options = ort.SessionOptions()
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    # A third to two thirds of the default's step memory, at no cost in time: docs/decisions/0003.
    options.enable_mem_pattern = False
    # Reuse planned ahead hands a forward tensor's buffer to a gradient of its shape, and holds it all the while; the
    # arena reuses what is free anyway: docs/decisions/0009.
    options.enable_mem_reuse = False
    options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    # By default they spin, and go on for 20 ms behind each run: docs/decisions/0026.
    entry = ("session.force_spinning_stop", "1") if spinning else ("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry(*entry)
    return options


def int8_sums_saturate() -> bool:
    """Whether ONNX Runtime, left to itself, cuts off int8 sums on this CPU: measured once (int8_sums.py)."""
    return int8_sums.saturate(load_onnxruntime())


def open_session(
    model: str | bytes, options: Any, wide_sums: bool | None = None, providers: Sequence[Provider] = ON_CPU
) -> Any:
    """The one way in which builder, SDK, runners and tests open graphs that may be in int8.

    `model` is a path or a serialised ModelProto. With `wide_sums` int8 sums do not saturate at 16 bits on x86 CPUs
    without VNNI; None asks for them where this CPU needs them. Raises what ONNX Runtime raises.
    """
    # 1.25.0 dies in it on some int8 graphs, which builders wrote before this was known.
    left_out = ["WhereDummyDq"]
    if int8_sums_saturate() if wide_sums is None else wide_sums:
        options.add_session_config_entry(*int8_sums.WIDE_SUMS)
        left_out.append(int8_sums.SHARES_KERNELS)
    return load_onnxruntime().InferenceSession(
        model, options, providers=list(providers), disabled_optimizers=left_out
    )


class Graph:
    """One opened ONNX graph: named arrays in, named arrays out.

    `weights` replaces tensors of weights.safetensors by name, before the runtime optimises the graph.
    `threads` is the number of compute threads, 0 for the runtime's default of one per core. With `partial`, a run
    computes only what the outputs that were asked for need. `wide_sums` is that of `open_session`, `optimised` and
    `spinning` are those of `session_options`. `providers` are those of `csk_sdk.runtime.providers`; `sizes` fixes
    dimensions by name, which some of them need. A run that takes longer than `time_limit` seconds is ended.
    Raises BundleError where the graph cannot be opened, RuntimeMissingError where a provider cannot start or compute.
    """

    def __init__(
        self,
        path: Path,
        threads: int = 0,
        weights: Mapping[str, NDArray[np.float32]] | None = None,
        partial: bool = False,
        wide_sums: bool | None = None,
        optimised: bool = True,
        spinning: bool = False,
        providers: Sequence[Provider] = ON_CPU,
        sizes: Mapping[str, int] | None = None,
        time_limit: float | None = None,
    ) -> None:
        ort = load_onnxruntime()
        options = session_options(threads, optimised, spinning)
        for name, size in (sizes or {}).items():
            options.add_free_dimension_override_by_name(name, size)
        # The runtime takes copies of these arrays: when the graph is open they are dropped (decision 0014).
        values = [
            ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
            for array in (weights or {}).values()
        ]
        if weights:
            options.add_external_initializers(list(weights), values)
        self._path, self._time_limit, self._provider = path, time_limit, ""
        try:
            with returning_memory():
                self._session = open_session(str(path), options, wide_sums, providers)
        except Exception as error:
            raise self._failed("open", error) from None
        self._provider = "" if tuple(providers) == ON_CPU else _started(self._session, providers)
        self._partial, self._has_arena = partial, True
        self._keeping, self._releasing = self._run_options(False), self._run_options(True)
        self.outputs: list[str] = [output.name for output in self._session.get_outputs()]

    def run(
        self,
        feeds: Mapping[str, NDArray[Any]],
        outputs: Sequence[str] | None = None,
        release: bool = False,
    ) -> dict[str, NDArray[Any]]:
        """Run the graph once; all outputs by default.

        `release` gives working memory back to the system afterwards: the runtime would keep it even when this
        graph is closed, in pieces that fit no other graph. Copies are returned then, because the runtime's own arrays
        hold the whole arena that they lie in, longer than this session lives. For one run; behind many, `close`.
        Raises BundleError for whatever the runtime raises: a graph is data from outside.
        """
        names = list(outputs) if outputs is not None else self.outputs
        try:
            if not release:
                return self._limited(feeds, names, False)
            returned = self._released(feeds, names)
        except CskError:
            raise
        except Exception as error:
            raise self._failed("run", error) from None
        return {name: array.copy() for name, array in returned.items()}

    def close(self) -> None:
        """Give all its memory back to the system; it runs no more. Arrays that it returned, and no copies of them, hold
        its arena as long as they live."""
        self._session = None
        give_back()

    def _run_options(self, release: bool) -> Any:
        options = load_onnxruntime().RunOptions()
        options.only_execute_path_to_fetches = self._partial
        if release:
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        return options

    def _failed(self, what: str, error: Exception) -> BundleError | RuntimeMissingError:
        reason = reason_of(error)
        if self._provider:
            return RuntimeMissingError(
                f"{self._provider} cannot compute this network ({reason}): leave it out of the providers."
            )
        version = load_onnxruntime().__version__
        return BundleError(f"ONNX Runtime {version} cannot {what} {self._path} ({reason}).")

    def _released(self, feeds: Mapping[str, NDArray[Any]], names: Sequence[str]) -> dict[str, NDArray[Any]]:
        try:
            return self._limited(feeds, names, self._has_arena)
        except Exception as error:
            if "arena" not in str(error):
                raise
            # This runtime was built without an arena, as the training package is: there is nothing to give back.
            self._has_arena = False
            return self._limited(feeds, names, False)

    def _limited(
        self, feeds: Mapping[str, NDArray[Any]], names: Sequence[str], release: bool
    ) -> dict[str, NDArray[Any]]:
        """One run, ended where it takes too long: the runtime looks between two ops whether it should."""
        if self._time_limit is None:
            return self._run(feeds, names, self._releasing if release else self._keeping)
        options, late = self._run_options(release), Event()

        def end() -> None:
            late.set()
            options.terminate = True

        timer = Timer(self._time_limit, end)
        timer.daemon = True
        timer.start()
        try:
            return self._run(feeds, names, options)
        except Exception:
            if not late.is_set():
                raise
            raise BundleError(
                f"{self._path} was still computing after {self._time_limit:g} s, and was ended. Allow one run more "
                "time with time_limit under [training] in csk.toml, or do not use this bundle."
            ) from None
        finally:
            timer.cancel()

    def _run(
        self, feeds: Mapping[str, NDArray[Any]], names: Sequence[str], options: Any
    ) -> dict[str, NDArray[Any]]:
        outputs = self._session.run(names, dict(feeds), options)
        return dict(zip(names, outputs, strict=True))


def _started(session: Any, providers: Sequence[Provider]) -> str:
    """The names of the providers that a session was to run on. Raises RuntimeMissingError where it does not.

    ONNX Runtime goes on without them: at the start with a line in its log, in a run with one on stdout.
    """
    names = [one if isinstance(one, str) else one[0] for one in providers]
    missing = [name for name in names if name not in session.get_providers()]
    if missing:
        raise RuntimeMissingError(
            f"{missing[0]} is part of this ONNX Runtime, and cannot start here: install its driver and libraries, or "
            "leave it out of the providers."
        )
    session.disable_fallback()
    return ", ".join(names)
