"""What a device has learned, on disk: numbered generations that are committed atomically."""

from csk_sdk.state.folder import State
from csk_sdk.state.generation import Generation, GenerationRecord, LearnedTask
from csk_sdk.state.store import BASE
from csk_sdk.state.versions import STATE_SCHEMA_VERSION

__all__ = ["BASE", "STATE_SCHEMA_VERSION", "Generation", "GenerationRecord", "LearnedTask", "State"]
