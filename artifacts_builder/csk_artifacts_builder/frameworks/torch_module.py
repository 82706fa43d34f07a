"""`from_torch`: a bundle of a torch module in one call. Only here is torch imported, and only when it is called."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_artifacts_builder.build import BuildReport, build_artifacts
from csk_artifacts_builder.frameworks.comparing import reason_of, require_same_outputs
from csk_artifacts_builder.options import BuildOptions
from csk_sdk.errors import ConfigError, ModelError, RuntimeMissingError
from csk_sdk.formats.names import likeness


@dataclass(frozen=True)
class ModuleConfig:
    """What a module's own configuration says of its images; None where it says nothing. `source` is where it stands.

    `size` is `(channels, height, width)`; `mean` and `std` are for pixels of 0 to 1.
    """

    source: str = ""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: tuple[int, ...] | None = None
    classes: tuple[str, ...] | None = None


def from_torch(
    module: Any,
    example: Any,
    out: Path | str,
    options: BuildOptions | None = None,
    *,
    weights: Any = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> BuildReport:
    """Build a bundle of a torch module, which is exported with `torch.onnx.export(..., dynamo=True)`.

    `example` is what the module takes, a tensor or a float32 array `(n, channels, height, width)`, or
    `(n, channels, length)` of a signal; its values do not matter. None takes the size that the module's configuration
    names. Mean, std and class names that `options` do not give are those of timm's `pretrained_cfg` (or `default_cfg`),
    or of torchvision's `weights`, such as `ResNet18_Weights.DEFAULT`; names are taken only if there is one for each
    output. The module is exported for inference, and is afterwards in the mode that it was in.

    Needs torch 2.6 or newer beside `csk-sdk[builder]`. One call at a time: torch's exporter is not for threads.
    Raises RuntimeMissingError without torch, ConfigError where it is not a module or nothing tells its input's size,
    ModelError where torch does not export it, or the file says something else than the module; and what
    `build_artifacts` raises.
    """
    options = options or BuildOptions()
    torch = _torch()
    if not isinstance(module, torch.nn.Module):
        raise ConfigError(f"from_torch takes a torch.nn.Module, and not {type(module).__name__!r}.")
    config = module_config(module, weights)
    x = _example(torch, module, example, config)
    with tempfile.TemporaryDirectory() as folder, _for_inference(module), torch.no_grad():
        path = Path(folder) / f"{_name(module)}.onnx"
        outputs = _outputs(torch, module, x)
        _export(torch, module, x, path)
        require_same_outputs(path, x.cpu().numpy(), outputs, "torch", "module", half=x.element_size() < 4)
        options, said = _with_config(options, config, x.shape[1], outputs)
        report = build_artifacts(path, out, options, on_progress)
    return replace(report, notes=(*said, *report.notes))


def module_config(module: Any, weights: Any = None) -> ModuleConfig:
    """What `weights`, or else the module itself, says of its images."""
    if weights is not None:
        return _of_weights(weights)
    for name in ("pretrained_cfg", "default_cfg"):
        found = getattr(module, name, None)
        plain = asdict(found) if is_dataclass(found) and not isinstance(found, type) else found
        if isinstance(plain, Mapping) and plain.get("mean") is not None:
            return ModuleConfig(
                f"the module's {name}",
                _floats(plain.get("mean")),
                _floats(plain.get("std")),
                _ints(plain.get("input_size")),
                _names(plain.get("label_names")),
            )
    return ModuleConfig()


def _of_weights(weights: Any) -> ModuleConfig:
    """torchvision's: `transforms` makes the preprocessing, `meta` has the categories."""
    make, meta = getattr(weights, "transforms", None), getattr(weights, "meta", None)
    if not callable(make) or not isinstance(meta, Mapping):
        raise ConfigError(
            f"weights={weights!r} is none of torchvision's: pass such as ResNet18_Weights.DEFAULT, or leave it out and "
            "give mean, std and classes."
        )
    how = make()
    mean, crop = _floats(getattr(how, "mean", None)), _ints(getattr(how, "crop_size", None))
    size = (len(mean), *(crop * 2 if len(crop) == 1 else crop)) if mean and crop else None
    return ModuleConfig(
        str(weights), mean, _floats(getattr(how, "std", None)), size, _names(meta.get("categories"))
    )


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise RuntimeMissingError(
            "from_torch needs torch in this environment: pip install torch, or export the model elsewhere and build "
            "from the ONNX file."
        ) from None
    return torch


def _example(torch: Any, module: Any, example: Any, config: ModuleConfig) -> Any:
    """One input, as the module's first parameter is typed and placed."""
    if example is None:
        if config.size is None:
            raise ConfigError(
                "Nothing tells the input's size: pass an example, such as torch.zeros(1, 3, 224, 224)."
            )
        example = np.random.default_rng(0).normal(size=(1, *config.size)).astype(np.float32)
    x = torch.as_tensor(example)
    if x.ndim not in (3, 4) or not len(x):
        raise ConfigError(
            f"The example has shape {tuple(x.shape)}; it must be (n, channels, height, width) of images, or "
            "(n, channels, length) of signals."
        )
    like = next(module.parameters(), None)
    return x[:1] if like is None else x[:1].to(like.device, like.dtype if x.is_floating_point() else x.dtype)


@contextlib.contextmanager
def _for_inference(module: Any) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _outputs(torch: Any, module: Any, x: Any) -> list[NDArray[np.float32]]:
    """The tensors that the module gives, as float32 arrays."""
    try:
        given = module(x)
    except Exception as error:
        raise ModelError(
            f"The module does not run on an example {tuple(x.shape)} ({reason_of(error)})."
        ) from None
    leaves = torch.utils._pytree.tree_leaves(given)
    return [leaf.float().cpu().numpy() for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _export(torch: Any, module: Any, x: Any, path: Path) -> None:
    level = logging.root.manager.disable
    logging.disable()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module, (x,), path, dynamo=True, external_data=False, verbose=False, input_names=["image"]
            )
    except Exception as error:
        raise ModelError(
            f"torch {torch.__version__} does not export {type(module).__name__} ({reason_of(error)}). Export it "
            "yourself with torch.onnx.export, perhaps dynamo=False, and build from the file."
        ) from None
    finally:
        logging.disable(level)


def _with_config(
    options: BuildOptions, config: ModuleConfig, channels: int, outputs: Sequence[NDArray[np.float32]]
) -> tuple[BuildOptions, tuple[str, ...]]:
    """The options, filled up from the configuration, and a sentence on what was."""
    taken: list[str] = []
    renamed: tuple[str, ...] = ()
    sizes = [len(values or ()) for values in (config.mean, config.std)]
    if options.mean is None and options.std is None and sizes == [channels, channels]:
        options = replace(options, mean=config.mean, std=config.std)
        taken += ["mean", "std"]
    count = outputs[0].shape[-1] if outputs and outputs[0].ndim > 1 else 0
    if options.classes is None and config.classes is not None and len(config.classes) == count:
        classes, renamed = told_apart(config.classes)
        options = replace(options, classes=classes)
        taken.append("class names")
    listed = f"{', '.join(taken[:-1])} and {taken[-1]}" if taken[1:] else "".join(taken)
    said = [f"{listed} are those of {config.source}."] if taken else []
    if renamed:
        said.append(
            f"names that {config.source} gives to several classes, but for capitals, have their class's number behind "
            f"them: {', '.join(repr(name) for name in renamed)}."
        )
    return options, tuple(said)


def told_apart(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names that no device takes for one another, and those that got their class's number behind them for it.

    ImageNet's have a dog and a jacket: Cardigan and cardigan.
    """
    alike = Counter(likeness(name) for name in names)
    apart = [f"{name} ({n})" if alike[likeness(name)] > 1 else name for n, name in enumerate(names)]
    return tuple(apart), tuple(new for new, old in zip(apart, names, strict=True) if new != old)


def _name(module: Any) -> str:
    """What the bundle calls its model: timm's architecture, or the class."""
    found = getattr(module, "pretrained_cfg", None)
    named = found.get("architecture") if isinstance(found, Mapping) else None
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in str(named or type(module).__name__))


def _floats(values: Any) -> tuple[float, ...] | None:
    return tuple(float(value) for value in values) if isinstance(values, Sequence) else None


def _ints(values: Any) -> tuple[int, ...] | None:
    return tuple(int(value) for value in values) if isinstance(values, Sequence) else None


def _names(values: Any) -> tuple[str, ...] | None:
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        return None
    return tuple(str(value) for value in values)
