"""A disk that is not reached any more: as where a process is killed."""

from __future__ import annotations

from typing import Any


class Interrupted:
    """`os` in which a call that changes the disk is the last."""

    def __init__(self, real: Any, left: list[int]) -> None:
        self._real, self._left = real, left

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)
        if name not in ("replace", "unlink", "write", "fsync", "mkdir"):
            return real

        def call(*arguments: Any, **more: Any) -> Any:
            self._left[0] -= 1
            if self._left[0] <= 0:
                raise KeyboardInterrupt
            return real(*arguments, **more)

        return call
