"""What becomes of a command whose output is closed while it works, as by `| head`, a pager or a dropped ssh."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any


def outlive_output() -> None:
    """Let the command go on where stdout or stderr is closed: what it does counts, and only its output is lost."""
    sys.stdout, sys.stderr = _outliving(sys.stdout), _outliving(sys.stderr)


class _Outliving(io.FileIO):
    """A file of the system whose reader may go; what is written afterwards goes nowhere."""

    def __init__(self, number: int) -> None:
        super().__init__(number, "wb", closefd=False)
        # Of a terminal that was hung up there is no better answer; of a disk the same one is an error.
        self._gone = {errno.EPIPE, errno.EIO} if self.isatty() else {errno.EPIPE}
        if sys.platform == "win32":
            self._gone.add(errno.EINVAL)

    def write(self, data: Any) -> int:
        """As of any file, until nobody reads any more."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in self._gone:
                raise
        # Below Python, too: ONNX Runtime writes there itself.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        return super().write(data)


def _outliving(stream: Any) -> Any:
    """The same stream, outliving its reader; as it is where it is no file of the system."""
    if type(stream) is not io.TextIOWrapper:
        return stream
    raw = getattr(stream.buffer, "raw", stream.buffer)
    if type(raw) is not io.FileIO:
        return stream
    stream.flush()
    file = _Outliving(stream.fileno())
    return io.TextIOWrapper(
        # With PYTHONUNBUFFERED there is no buffer between.
        file if raw is stream.buffer else io.BufferedWriter(file),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
