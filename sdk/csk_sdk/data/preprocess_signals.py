"""From a signal of any length to the float32 input of the bundle's graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csk_sdk.contract.manifest import InputSpec, Manifest, PreprocessingSpec
from csk_sdk.data.preprocess import PicturePreprocessing, Preprocessing
from csk_sdk.data.signals import Signal, check_finite, check_samples
from csk_sdk.errors import TaskError
from csk_sdk.formats.given import items_of
from csk_sdk.formats.wording import plural

# No signal has more channels than this beside so few samples: such a matrix is one signal, not a batch of short ones.
_FEW = 8


class SignalPreprocessing(Preprocessing):
    """Signals as the manifest says: float32 `(length, channels)`, int16 scaled, the middle cut out or zeros around.

    Raises BundleError when the manifest's mean, std or resize cannot be applied.
    """

    dtype = np.dtype(np.float32)
    _RESIZES = ("crop", "none")

    def __init__(self, spec: PreprocessingSpec, input_spec: InputSpec) -> None:
        super().__init__(spec, input_spec, scale=1.0)
        (self.length,) = input_spec.size
        self.rate = spec.sample_rate
        self._scale = np.float32(spec.scale)
        self._crops = spec.resize == "crop"

    def to_size(self, item: NDArray[Any] | Signal, where: str) -> NDArray[np.float32]:
        """Give a signal the model's length.

        item: int16 or float `(length,)` or `(length, channels)`, or a `Signal`. where: names it in errors. Of a longer
        signal the middle is kept, a shorter one gets zeros at both ends (of an odd difference, one more at the end).
        Returns float32 `(length, channels)`, C-contiguous.
        Raises TaskError for an image, another dtype, shape, number of channels or sample rate, for numbers that are
        not finite, and for another length if the bundle does not crop.
        """
        signal = item if isinstance(item, Signal) else Signal(item)
        self._check(signal, where)
        samples = signal.samples[:, None] if signal.samples.ndim == 1 else signal.samples
        if samples.shape[1] != self.channels:
            raise self._other_channels(samples, where)
        if len(samples) != self.length and not self._crops:
            raise TaskError(
                f"{where} is {plural(len(samples), 'sample')} long and the model takes {self.length}: cut it to that "
                "length, or build the bundle with --resize crop."
            )
        begin = max(0, len(samples) - self.length) // 2
        samples = samples[begin : begin + self.length]
        with np.errstate(
            over="ignore"
        ):  # a float64 that float32 cannot hold becomes infinite, and is refused
            scaled = samples.astype(np.float32, order="C")
        if samples.dtype == np.int16:
            scaled *= self._scale
        check_finite(scaled, where)
        missing = self.length - len(samples)
        return np.pad(scaled, ((missing // 2, missing - missing // 2), (0, 0))) if missing else scaled

    def stack(self, items: NDArray[Any] | Sequence[Any]) -> NDArray[np.float32]:
        """`to_size` for many: an array `(n, length, channels)`, or a list of signals of any length.

        A model with one channel also takes `(n, length)`. Returns float32 `(n, length, channels)`.
        Raises TaskError as `to_size` does.
        """
        items = items_of(items, "signals")
        if isinstance(items, np.ndarray):
            items = self._as_batch(items)
        batch = np.empty((len(items), *self.shape), np.float32)
        for i, item in enumerate(items):
            batch[i] = self.to_size(item, f"signal {i}")
        return batch

    def _as_batch(self, signals: NDArray[Any]) -> NDArray[Any]:
        if signals.dtype == np.uint8:
            raise self._picture("The array", signals)
        one_signal = signals.ndim == 2 and signals.shape[1] <= _FEW and signals.shape[1] != self.length
        if signals.ndim == 2 and self.channels == 1 and not one_signal:
            return signals[:, :, None]
        if signals.ndim != 3:
            raise TaskError(
                f"The signals have shape {signals.shape} and a batch has shape (n, length, channels): "
                "hand over a single signal as signal[None]."
            )
        return signals

    def _check(self, signal: Signal, where: str) -> None:
        samples = signal.samples
        if not isinstance(samples, np.ndarray):
            raise TaskError(
                f"{where} is a {type(samples).__name__} and must be an int16 or float NumPy array."
            )
        if samples.dtype == np.uint8:
            raise self._picture(where, samples)
        check_samples(samples, where)
        if signal.rate is None or signal.rate == self.rate:
            return
        if self.rate is None:
            raise TaskError(
                f"{where} is sampled at {signal.rate} Hz, and the bundle does not say what its model takes: build "
                "it again with --sample-rate."
            )
        raise TaskError(
            f"{where} is sampled at {signal.rate} Hz and the model takes {self.rate} Hz: resample it."
        )

    def _picture(self, where: str, pixels: NDArray[Any]) -> TaskError:
        return TaskError(
            f"{where} is an image ({pixels.dtype} of shape {pixels.shape}), and the model takes signals: "
            f"{self._wanted()}."
        )

    def _other_channels(self, samples: NDArray[Any], where: str) -> TaskError:
        if samples.shape[0] == self.channels:
            return TaskError(
                f"{where} has shape {samples.shape}, and the model takes (length, channels) with {self.channels} "
                "channels: transpose it."
            )
        return TaskError(
            f"{where} has {plural(samples.shape[1], 'channel')} and the model takes {self.channels}: hand over signals "
            "with the channels that the model was trained on."
        )

    def _wanted(self) -> str:
        return f"int16 or float, (length, channels) = ({self.length}, {self.channels})"


def preprocessing_of(manifest: Manifest) -> Preprocessing:
    """Images' or signals', as the manifest's input is. Raises BundleError where it cannot be applied."""
    kind = SignalPreprocessing if manifest.input.is_signal else PicturePreprocessing
    return kind(manifest.preprocessing, manifest.input)
