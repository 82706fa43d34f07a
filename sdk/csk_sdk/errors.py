"""Everything that csk-sdk raises on purpose.

    CskError
    ├── ModelError               the source model cannot be turned into a bundle
    │   └── UnsupportedOpError   an op on the gradient path has no gradient rule
    ├── BundleError              a bundle is missing, damaged, or of another schema
    ├── StateError               a state folder is damaged or belongs to another bundle
    │   └── StateLockedError     another process is writing to it
    ├── TaskError                a task's data cannot be learned from, or nothing can be said of an image
    │   ├── ContradictionError   a task says of known classes that they are others
    │   └── DivergedError        numbers became NaN or infinite while a task was learned
    ├── StorageError             the disk is full or refuses to be written
    ├── FleetError               a fleet's file is damaged, of another bundle, or says what cannot be
    ├── ConfigError              a setting is unknown or out of range
    └── RuntimeMissingError      no ONNX Runtime, or two of them, in this environment

Each message is one sentence or two that say what is wrong, where, and what to do next.
Whatever is raised, committed generations stay as they are.
"""


class CskError(Exception):
    """Base class: catch this to catch everything that csk-sdk raises on purpose."""


class ModelError(CskError):
    """The source model cannot be turned into a bundle."""


class UnsupportedOpError(ModelError):
    """An op between the first site and the loss has no gradient rule."""


class BundleError(CskError):
    """A bundle is missing, damaged, or was written in another schema."""


class StateError(CskError):
    """A state folder is damaged or belongs to another bundle."""


class StateLockedError(StateError):
    """Another process holds the state's lock."""


class TaskError(CskError):
    """A task's data cannot be learned from, or nothing can be said of an image or signal."""


class ContradictionError(TaskError):
    """A task says of known classes that they are others; it is learned once it is said whether it adds or replaces."""


class DivergedError(TaskError):
    """Numbers became NaN or infinite while a task was learned, by an image or by the training."""


class StorageError(CskError):
    """The disk is full, or refuses to be written."""


class FleetError(CskError):
    """A file of what a device or a fleet has learned is damaged, of another bundle, or not to be trusted."""


class ConfigError(CskError):
    """A setting is unknown or out of range."""


class RuntimeMissingError(CskError):
    """No ONNX Runtime, or two conflicting ones, in this environment."""
