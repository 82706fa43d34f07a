"""`state.json`: which bundle a state belongs to, and the schema of the whole."""

from __future__ import annotations

from pathlib import Path

from csk_sdk.errors import StateError
from csk_sdk.formats.places import STATE, mistaken
from csk_sdk.state.atomic import UnreadableError, exists, make_folder, names_in, replace_file
from csk_sdk.state.field import FIELD, FIELD_LOCK
from csk_sdk.state.sealing import seal, unseal
from csk_sdk.state.store import IDENTITY, GenerationStore
from csk_sdk.state.versions import WRITTEN, Needs

# What may be there before state.json is: a lock, what bundles were accepted, and what is left of a state.
_PARTS = frozenset(
    {
        IDENTITY,
        "HEAD",
        "generations",
        "blocks",
        "ledger",
        "scores",
        "progress.safetensors",
        "accepted.json",
        "lock",
        "lock.node",
        FIELD,
        FIELD_LOCK,
    }
)
# Hidden files, and kernels of a run that was killed (network/profiles.py).
_OUR_SCRATCH = (".", "kernels-")
# What systems put into folders, or onto disks, by themselves.
_NOBODYS = frozenset({"lost+found", "system volume information", "thumbs.db", "desktop.ini"})


def write_identity(store: GenerationStore, bundle_id: str) -> None:
    """Make the folder a state of this bundle, durably. Raises StorageError when it cannot be written."""
    make_folder(store.folder)
    # The records say where they take more.
    content = {"schema_version": WRITTEN.reader, "bundle_id": bundle_id}
    replace_file(store.folder / IDENTITY, seal(content))


def check_identity(store: GenerationStore, bundle_id: str) -> bool:
    """Whether the folder holds a state yet.

    Raises StateError when it is not this bundle's, or only a newer csk-sdk may read it.
    """
    path = store.folder / IDENTITY
    if not exists(path):
        # In this order, and asked again: another process may be writing the first files just now.
        if (exists(store.head_path) or exists(store.generations)) and not exists(path):
            raise StateError(
                f"{path} is missing, so nobody knows which bundle {store.folder} belongs to. "
                "Restore it from a backup, or start a new state folder."
            )
        if not exists(path):
            require_own_folder(store.folder)
            return False
    try:
        raw = unseal(path)
        version, owner = raw["schema_version"], raw["bundle_id"]
    except UnreadableError:
        raise
    except (StateError, KeyError) as error:
        raise StateError(
            f"{str(error).rstrip('.')}: nobody knows which bundle {store.folder} belongs to. Restore it from "
            "a backup, or start a new state folder."
        ) from error
    if type(version) is not int:
        raise StateError(f"{path} is damaged: its schema_version is {version!r}.")
    Needs(reader=version).require_reader(store.folder)
    if owner != bundle_id:
        raise StateError(
            f"{store.folder} belongs to another bundle (it was learned on {str(owner)[:8]}…, this "
            f"bundle is {bundle_id[:8]}…). Open it with its own bundle, carry it over to this one "
            "with csk-sdk upgrade, or start a new state folder."
        )
    return True


def require_own_folder(folder: Path) -> None:
    """Raise StateError where `folder`, which holds no state yet, is plainly something else, or holds other things."""
    said = mistaken(folder, STATE) or _shared(folder)
    if said is not None and not exists(folder / IDENTITY):
        raise StateError(said)


def _shared(folder: Path) -> str | None:
    """Nobody looks for a state among other things, and whoever clears them away takes it along."""
    found = sorted(
        name
        for name in names_in(folder)
        if not name.startswith(_OUR_SCRATCH) and name not in _PARTS and name.lower() not in _NOBODYS
    )
    if not found:
        return None
    named = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
    return (
        f"{folder} is no state and holds other things ({named}): a state needs a folder of its own. Give one that is "
        "empty, or that is not there yet."
    )
