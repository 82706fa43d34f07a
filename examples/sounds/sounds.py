"""Eight kinds of sound, synthesised: what a 1-d network is taught and tested with, since no recording is at hand.

    python examples/sounds/sounds.py OUT

writes the base data and two tasks as WAV files. Every clip has random pitch, phase, level, speed and onset, and
noise behind it, so that nothing but the kind of sound is common to a class. Needs NumPy only.
"""

from __future__ import annotations

import argparse
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np

RATE = 8000  # samples per second
LENGTH = 2048  # samples in a clip, a quarter of a second
BASE = ("tone", "noise", "clicks", "rising")
NEW = ("falling", "siren", "buzz", "tremolo")

Sound = np.ndarray  # float64 (LENGTH,), from -1 to 1
_TIME = np.arange(LENGTH) / RATE


def _pitch(rng: np.random.Generator) -> float:
    """200 to 1200 Hz, every octave as likely."""
    return float(200 * 6 ** rng.random())


def _sine(frequency: float | Sound, rng: np.random.Generator) -> Sound:
    """A sine whose frequency may change with time, in a random phase."""
    phase = np.cumsum(np.broadcast_to(frequency, LENGTH)) / RATE
    return np.sin(2 * np.pi * (phase + rng.random()))


def tone(rng: np.random.Generator) -> Sound:
    """A steady sine."""
    return _sine(_pitch(rng), rng)


def noise(rng: np.random.Generator) -> Sound:
    """A burst of noise that dies away."""
    return rng.normal(size=LENGTH) * np.exp(-_TIME * rng.uniform(5, 20)) / 2


def clicks(rng: np.random.Generator) -> Sound:
    """Short pulses, 30 to 80 a second."""
    period = RATE / rng.uniform(30, 80)
    since = np.mod(np.arange(LENGTH) + period * rng.random(), period)
    return np.exp(-since / rng.uniform(3, 8)) * np.cos(since * rng.uniform(0.5, 1.5))


def rising(rng: np.random.Generator) -> Sound:
    """A sine that rises by 1.2 to 1.8 octaves."""
    return _sine(_pitch(rng) * 2 ** np.linspace(0, rng.uniform(1.2, 1.8), LENGTH), rng)


def falling(rng: np.random.Generator) -> Sound:
    """A sine that falls by 1.2 to 1.8 octaves, over the frequencies of `rising`."""
    return _sine(_pitch(rng) * 2 ** np.linspace(rng.uniform(1.2, 1.8), 0, LENGTH), rng)


def siren(rng: np.random.Generator) -> Sound:
    """A sine whose pitch goes up and down 8 to 16 times a second."""
    swing = np.sin(2 * np.pi * (rng.uniform(8, 16) * _TIME + rng.random()))
    return _sine(_pitch(rng) * 2 ** (rng.uniform(0.4, 0.8) * swing), rng)


def buzz(rng: np.random.Generator) -> Sound:
    """A square wave: odd overtones."""
    return 0.7 * np.sign(_sine(_pitch(rng) / 2, rng))


def tremolo(rng: np.random.Generator) -> Sound:
    """A sine that swells and fades 12 to 30 times a second."""
    swell = 0.5 + 0.5 * np.sin(2 * np.pi * (rng.uniform(12, 30) * _TIME + rng.random()))
    return swell * _sine(_pitch(rng), rng)


KINDS: dict[str, Callable[[np.random.Generator], Sound]] = {
    kind.__name__: kind for kind in (tone, noise, clicks, rising, falling, siren, buzz, tremolo)
}


def clips(kind: str, count: int, seed: int) -> np.ndarray:
    """`count` clips of one kind: int16 `(count, LENGTH)`, as a converter of 16 bits gives them."""
    rng = np.random.default_rng((seed, *kind.encode()))
    made = []
    for _ in range(count):
        sound = rng.uniform(0.3, 0.9) * KINDS[kind](rng) + rng.uniform(0.005, 0.05) * rng.normal(size=LENGTH)
        made.append(np.round(32767 * np.clip(sound, -1, 1)).astype(np.int16))
    return np.stack(made)


def arrays(kinds: tuple[str, ...], count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` clips of each kind, int16 `(n, LENGTH)`, and their labels `(n,)`, positions in `kinds`."""
    return np.concatenate([clips(kind, count, seed) for kind in kinds]), np.repeat(
        np.arange(len(kinds)), count
    )


def write_wav(path: Path, clip: np.ndarray) -> None:
    """One clip as a mono WAV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(clip.astype("<i2").tobytes())


def write_folder(folder: Path, kinds: tuple[str, ...], count: int, seed: int) -> None:
    """`folder/<kind>/000.wav` and so on."""
    for kind in kinds:
        for index, clip in enumerate(clips(kind, count, seed)):
            write_wav(folder / kind / f"{index:03d}.wav", clip)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for base/ and tasks/")
    out = parser.parse_args().out
    write_folder(out / "base", BASE, 40, seed=1)
    write_folder(out / "tasks" / "base" / "test", BASE, 40, seed=2)
    for name, kinds in (("01-falling-siren", NEW[:2]), ("02-buzz-tremolo", NEW[2:])):
        write_folder(out / "tasks" / name / "train", kinds, 60, seed=1)
        write_folder(out / "tasks" / name / "test", kinds, 40, seed=2)
    print(f"wrote {sum(1 for _ in out.rglob('*.wav'))} clips of {LENGTH} samples at {RATE} Hz to {out}")


if __name__ == "__main__":
    main()
