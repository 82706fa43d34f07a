"""csk-sdk: on-device incremental learning for ONNX classifiers of images and signals.

from csk_sdk import Learner, Task

learner = Learner.open("bundle", state="state")
learner.learn(Task.from_folder("tasks/01-birds"))
labels, probabilities, classes = learner.predict(images)
learner.export("model.onnx")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# First of all: what it sets must be in the environment before onnxruntime is imported.
from csk_sdk.runtime import telemetry as _telemetry  # noqa: F401  # isort: skip

if TYPE_CHECKING:
    from csk_sdk.bundle.folder import Bundle
    from csk_sdk.config import TrainingConfig
    from csk_sdk.data.inbox import Inbox
    from csk_sdk.data.tasks import Task
    from csk_sdk.errors import (
        BundleError,
        ConfigError,
        ContradictionError,
        CskError,
        DivergedError,
        FleetError,
        ModelError,
        RuntimeMissingError,
        StateError,
        StateLockedError,
        StorageError,
        TaskError,
        UnsupportedOpError,
    )
    from csk_sdk.learner import Learner
    from csk_sdk.learning.adapting import Adapted
    from csk_sdk.learning.forgetting import Forgotten
    from csk_sdk.learning.learn_run import Progress
    from csk_sdk.learning.life import LearnReport
    from csk_sdk.learning.stream import TaskStream
    from csk_sdk.network.evaluation import Evaluation
    from csk_sdk.network.status import Need, Status
    from csk_sdk.objectives import Prediction
    from csk_sdk.workspace.upgrading import UpgradeReport, upgrade, upgrade_back
    from csk_sdk.workspace.verification import Verification, verify

__all__ = [
    "Adapted",
    "Bundle",
    "BundleError",
    "ConfigError",
    "ContradictionError",
    "CskError",
    "DivergedError",
    "Evaluation",
    "FleetError",
    "Forgotten",
    "Inbox",
    "LearnReport",
    "Learner",
    "ModelError",
    "Need",
    "Prediction",
    "Progress",
    "RuntimeMissingError",
    "StateError",
    "StateLockedError",
    "Status",
    "StorageError",
    "Task",
    "TaskError",
    "TaskStream",
    "TrainingConfig",
    "UnsupportedOpError",
    "UpgradeReport",
    "Verification",
    "upgrade",
    "upgrade_back",
    "verify",
]

# The module of each, imported with the first use of one of its names: nobody waits for what they do not use.
_MODULES = {
    "Adapted": "learning.adapting",
    "Bundle": "bundle.folder",
    "BundleError": "errors",
    "ConfigError": "errors",
    "ContradictionError": "errors",
    "CskError": "errors",
    "DivergedError": "errors",
    "FleetError": "errors",
    "Evaluation": "network.evaluation",
    "Forgotten": "learning.forgetting",
    "Inbox": "data.inbox",
    "LearnReport": "learning.life",
    "Learner": "learner",
    "ModelError": "errors",
    "Need": "network.status",
    "Prediction": "objectives",
    "Progress": "learning.learn_run",
    "RuntimeMissingError": "errors",
    "StateError": "errors",
    "StateLockedError": "errors",
    "Status": "network.status",
    "StorageError": "errors",
    "Task": "data.tasks",
    "TaskError": "errors",
    "TaskStream": "learning.stream",
    "TrainingConfig": "config",
    "UnsupportedOpError": "errors",
    "UpgradeReport": "workspace.upgrading",
    "Verification": "workspace.verification",
    "upgrade": "workspace.upgrading",
    "upgrade_back": "workspace.upgrading",
    "verify": "workspace.verification",
}

if not TYPE_CHECKING:  # a name that is missing stays an error of the type checker

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module 'csk_sdk' has no attribute {name!r}")
        value = getattr(import_module(f"csk_sdk.{_MODULES[name]}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
