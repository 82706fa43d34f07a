"""csk-sdk: on-device incremental learning for ONNX classifiers of images and signals.

from csk_sdk import Learner, Task

learner = Learner.open("bundle", state="state")
learner.learn(Task.from_folder("tasks/01-birds"))
labels, probabilities, classes = learner.predict(images)
learner.export("model.onnx")
"""

# First of all: what it sets must be in the environment before onnxruntime is imported.
from csk_sdk.runtime import telemetry as _telemetry  # noqa: F401  # isort: skip

from csk_sdk.bundle.folder import Bundle
from csk_sdk.config import TrainingConfig
from csk_sdk.data.inbox import Inbox
from csk_sdk.data.tasks import Task
from csk_sdk.errors import (
    BundleError,
    ConfigError,
    ContradictionError,
    CskError,
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
from csk_sdk.learning.forgetting import Forgotten
from csk_sdk.learning.learn_run import Progress
from csk_sdk.learning.life import LearnReport
from csk_sdk.learning.stream import TaskStream
from csk_sdk.network.evaluation import Evaluation
from csk_sdk.objectives import Prediction
from csk_sdk.workspace.upgrading import UpgradeReport, upgrade, upgrade_back
from csk_sdk.workspace.verification import Verification, verify

__all__ = [
    "Bundle",
    "BundleError",
    "ConfigError",
    "ContradictionError",
    "CskError",
    "Evaluation",
    "FleetError",
    "Forgotten",
    "Inbox",
    "LearnReport",
    "Learner",
    "ModelError",
    "Prediction",
    "Progress",
    "RuntimeMissingError",
    "StateError",
    "StateLockedError",
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
