"""What happens when a command does not end well: one sentence on stderr and an exit status."""

from __future__ import annotations

import errno
from typing import Any

import typer
from typer.core import TyperGroup

from csk_sdk.errors import CskError

FAILED, INTERRUPTED = 1, 130
_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})
_REFUSED = frozenset(
    {errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}
)


class Interrupted(Exception):
    """Ctrl-C, with what it means for the user."""


class GuardedGroup(TyperGroup):
    """The commands, each of which turns what the user can mend into a sentence. Bugs keep their traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except CskError as error:
            _end(f"Error: {error}", FAILED, error)
        except Interrupted as stop:
            _end(str(stop), INTERRUPTED, stop)
        except KeyboardInterrupt as stop:
            _end("Interrupted.", INTERRUPTED, stop)
        except MemoryError as error:
            _end(
                "Error: this device ran out of memory. Try a smaller --batch-size, or fewer sites "
                "(`csk-sdk build-artifacts --trainable`).",
                FAILED,
                error,
            )
        except OSError as error:
            if error.errno not in _DISK | _REFUSED:
                raise
            _end(f"Error: {_sentence(error)}", FAILED, error)


def _end(text: str, status: int, cause: BaseException) -> None:
    typer.echo(text, err=True)
    raise typer.Exit(status) from cause


def _sentence(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    remedy = (
        "Free some space or check the disk; nothing that was learned is lost."
        if error.errno in _DISK
        else "Check the path and its permissions."
    )
    return f"{error.strerror}{where}. {remedy}"
