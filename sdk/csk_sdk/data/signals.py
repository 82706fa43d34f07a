"""Where a task's signals come from: an array in memory, or WAV and npy files read when they are asked for.

A signal is a matrix `(length, channels)` of samples: int16 as a converter gives them, or floats as they are. Audio in
floats runs from -1 to 1, and so do the samples of every WAV file, whatever its number of bits.
"""

from __future__ import annotations

import hashlib
import math
import os
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from csk_sdk.data.npz import read_header
from csk_sdk.data.source import Files, undecodable, unreadable
from csk_sdk.errors import TaskError

SIGNAL_SUFFIXES = frozenset({".wav", ".npy"})

# 23 minutes of 48 kHz; as floats already 256 MiB of the device's memory.
MAX_SAMPLES = 64 << 20
# How many broken signals of an array are told by their index.
_NAMED = 5
# How an npz file begins.
_ZIP = b"PK\x03\x04"


@dataclass(frozen=True, eq=False)
class Signal:
    """One signal: `samples` int16 or float `(length, channels)`, and its `rate` in Hz where the file says one."""

    samples: NDArray[Any]
    rate: int | None = None


class ArraySignals:
    """Signals of one length in an int16 or float array, `(n, length, channels)`, or `(n, length)` for one channel.

    where: what messages call the array. Raises TaskError when the array is of another dtype or shape, or holds
    numbers that are not finite.
    """

    noun = "signal"

    def __init__(self, signals: NDArray[Any], where: str = "signals") -> None:
        _check_batch(signals, where)
        self._signals = signals[:, :, None] if signals.ndim == 2 else signals
        self._where = where

    def __len__(self) -> int:
        """Return the number of signals."""
        return len(self._signals)

    def read(self, index: int) -> Signal:
        """Return a view of the signal."""
        return Signal(self._signals[index])

    def name(self, index: int) -> str:
        """Return the array's name and the index."""
        return f"{self._where}[{index}]"

    def identity(self, index: int) -> str:
        """Return index, dtype, shape, byte size and sha256 of the samples."""
        samples = np.ascontiguousarray(self._signals[index])
        digest = hashlib.sha256(samples.data).hexdigest()
        return f"{index} {samples.dtype} {samples.shape} {samples.nbytes} {digest}"


class FileSignals(Files):
    """WAV files (PCM of 8, 16, 24 or 32 bits) and npy files (int16 or float), one signal each."""

    noun = "signal"

    def read(self, index: int) -> Signal:
        """Read a file: int16 for a WAV file of 16 bits, floats from -1 to 1 for the other WAV files.

        Raises TaskError when the file is missing, unreadable, damaged, of another format, or holds more than
        64 Mi samples.
        """
        path = self._paths[index]
        try:
            with self._open(index) as file:
                return _read_npy(file, path) if path.suffix.lower() == ".npy" else _read_wav(file, path)
        except TaskError:
            raise
        except Exception as error:
            # `wave` and NumPy raise what they like on damaged data: wave.Error, EOFError, ValueError and others.
            if isinstance(error, OSError) and error.errno is not None:
                raise unreadable(path, error) from None
            raise undecodable(path, str(error).rstrip(".") or type(error).__name__) from None


def _read_wav(file: BinaryIO, path: Path) -> Signal:
    try:
        with wave.open(file) as recording:
            length, channels = recording.getnframes(), recording.getnchannels()
            if length * channels > MAX_SAMPLES:
                raise undecodable(path, f"{length * channels} samples, more than {MAX_SAMPLES}")
            width, rate = recording.getsampwidth(), recording.getframerate()
            data = recording.readframes(length)
    except (wave.Error, EOFError) as error:
        reason = str(error) or "it ends early"
        raise undecodable(path, f"no WAV file of PCM samples: {reason}") from None
    if len(data) != length * channels * width:
        whole = len(data) // (channels * width)
        raise undecodable(path, f"it ends after {whole} of {length} samples")
    if not data:
        raise undecodable(path, "it holds no sample")
    return Signal(_from_pcm(data, width, path).reshape(length, channels), rate)


def _from_pcm(data: bytes, width: int, path: Path) -> NDArray[Any]:
    """Little-endian integers of `width` bytes to int16 or float32, full scale 1. PCM of one byte is unsigned."""
    if width == 1:
        return (np.frombuffer(data, np.uint8).astype(np.float32) - 128.0) / 128.0
    if width == 2:
        return np.frombuffer(data, "<i2")
    if width == 3:
        # Three bytes become the upper ones of four, so that the sign is where int32 has it.
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        data, width = wide.tobytes(), 4
    if width == 4:
        return (np.frombuffer(data, "<i4") / 2.0**31).astype(np.float32)
    raise undecodable(path, f"{8 * width} bits a sample; WAV files may have 8, 16, 24 or 32")


def _read_npy(file: BinaryIO, path: Path) -> Signal:
    if file.read(4) == _ZIP:
        raise undecodable(path, "it holds several arrays; a npy file holds one")
    file.seek(0)
    shape, _ = read_header(file, os.fstat(file.fileno()).st_size)
    if math.prod(shape) > MAX_SAMPLES:
        raise undecodable(path, f"{math.prod(shape)} samples, more than {MAX_SAMPLES}")
    file.seek(0)
    samples = np.lib.format.read_array(file, allow_pickle=False)
    check_samples(samples, str(path))
    return Signal(samples[:, None] if samples.ndim == 1 else samples)


def check_samples(samples: NDArray[Any], where: str) -> None:
    """Raise TaskError unless one signal is int16 or float, `(length,)` or `(length, channels)`, and not empty."""
    _check_dtype(samples, where)
    if samples.ndim not in (1, 2):
        raise TaskError(f"{where} has shape {samples.shape} and must be (length,) or (length, channels).")
    if samples.size == 0:
        raise TaskError(f"{where} has shape {samples.shape}: there is no sample in it.")


def _check_dtype(samples: NDArray[Any], where: str) -> None:
    if samples.dtype != np.int16 and not np.issubdtype(samples.dtype, np.floating):
        raise TaskError(
            f"{where} is {samples.dtype}, and signals must be int16 (full scale 32768) or float (taken as they "
            "are): convert it."
        )


def _check_batch(signals: NDArray[Any], where: str) -> None:
    _check_dtype(signals, where)
    if signals.ndim not in (2, 3):
        raise TaskError(
            f"{where} has shape {signals.shape}, and signals must be (n, length, channels), or (n, length) if "
            "they have one channel."
        )
    if len(signals) == 0:
        raise TaskError(f"{where} holds no signal (shape {signals.shape}): put at least one into it.")
    if signals.size == 0:
        raise TaskError(f"{where} has shape {signals.shape}: there is no sample in its signals.")
    finite = np.isfinite(signals).reshape(len(signals), -1).all(axis=1)
    if not finite.all():
        broken = np.flatnonzero(~finite)
        which = ", ".join(map(str, broken[:_NAMED])) + (", ..." if len(broken) > _NAMED else "")
        check_finite(signals, where, f"those of index {which}")


def check_finite(samples: NDArray[Any], where: str, which: str = "the signal") -> None:
    """Raise TaskError where a sample is NaN or infinite; `which` is told to repair or remove."""
    bad = samples.size - int(np.isfinite(samples).sum())
    if bad:
        many = "1 sample that is" if bad == 1 else f"{bad} samples that are"
        raise TaskError(f"{where} has {many} not finite (NaN or infinite): repair or remove {which}.")
