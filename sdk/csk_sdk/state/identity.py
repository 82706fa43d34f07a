"""`state.json`: which bundle a state belongs to, and the schema of the whole."""

from __future__ import annotations

from csk_sdk.errors import StateError
from csk_sdk.formats.places import STATE, mistaken
from csk_sdk.state.atomic import UnreadableError, exists, make_folder, replace_file
from csk_sdk.state.generation import seal, unseal
from csk_sdk.state.store import IDENTITY, GenerationStore
from csk_sdk.state.versions import STATE_SCHEMA_VERSION, Needs


def write_identity(store: GenerationStore, bundle_id: str) -> None:
    """Make the folder a state of this bundle, durably. Raises StorageError when it cannot be written."""
    make_folder(store.folder)
    content = {"schema_version": STATE_SCHEMA_VERSION, "bundle_id": bundle_id}
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
            if (said := mistaken(store.folder, STATE)) is not None:
                raise StateError(said)
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
            f"bundle is {bundle_id[:8]}…). Open it with its own bundle, or start a new state folder."
        )
    return True
