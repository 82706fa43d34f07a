"""The fields of `TrainingConfig`.

Generated from csk_sdk/contract/settings.json: change it there, and run `make contract`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingFields:
    """Every setting of a training run, its type and its default."""

    epochs: int = 4
    """Passes over the task's data, at most. A whole number, 1 or more."""

    patience: int = 3
    """Stop when the loss has not fallen by 1 % in so many epochs; 0 never does. A whole number, 0 or more."""

    seconds: float | None = None
    """Stop after so many seconds, and keep what was learned. Above 0, and finite, in seconds. None: no
    limit.
    """

    flops: float | None = None
    """Stop after so many floating-point operations, such as 2e12. Above 0, and finite, in FLOPs. None: no
    limit.
    """

    batch_size: int | None = None
    """Images or signals per step. A whole number, 1 or more, in images. None: the bundle's own."""

    channel_ratio: float | None = None
    """Share of each site's channels to train. Above 0 and at most 1. None: the bundle's own."""

    energy: float = 0.8
    """Share of the old data's variance that is protected: the retained-variance threshold of the
    projection; 0 switches it off. Between 0 and 1.
    """

    follow_drift: bool | None = None
    """Drift compensation: carry old heads and statistics over to the features as they move. None: on,
    unless `energy` is 0.
    """

    optimizer: str = "sgd"
    """How a gradient becomes a step: SGD with momentum, AdamW, or Lion, which has half of AdamW's memory
    and wants learning rates of 0.001 or less.
    """

    learning_rate: float = 0.01
    """Peak learning rate of the centers, or kernels; it follows a cosine. 0 or more, and finite."""

    head_learning_rate: float = 0.005
    """Peak learning rate of the head; it follows a cosine. 0 or more, and finite."""

    momentum: float = 0.9
    """Share of the last step that the next one repeats (SGD only). At least 0 and below 1."""

    weight_decay: float = 0.0
    """How strongly changes of the centers, and the head, are pulled towards 0. 0 or more, and finite."""

    label_smoothing: float = 0.0
    """Share of each label that is spread over all classes (cross-entropy only). At least 0 and below 1."""

    flip: bool | None = None
    """Mirror images at random; signals never are. None: the bundle's own."""

    shift: int | None = None
    """Move images or signals at random, by at most so many pixels or samples. A whole number, 0 or more, in
    pixels or samples. None: a 16th of the image's shorter side, or of the signal's length.
    """

    seed: int = 0
    """Order and augmentation of the data. A whole number, 0 or more."""

    threads: int = 0
    """Compute threads; 0 is one per core, in JavaScript the runtime's own choice. A whole number, 0 or
    more.
    """

    spinning: bool = False
    """Threads wait for work without sleeping: faster steps, where no other program needs the cores."""

    time_limit: float | None = None
    """End a step or any other run of a graph that takes longer: what a stranger's bundle may cost. Above 0,
    and finite, in seconds. None: no limit.
    """

    sensitivity_batches: int = 32
    """On at most how many batches the channels are selected. A whole number, 1 or more."""

    gradient_share: float = 0.9
    """Take steps over those images only that together send back this share of the gradient when training
    begins, two batches at least; 1 is all. Streams use all. Above 0 and at most 1.
    """

    class_statistics: bool = True
    """Keep sums over the features of each class; without, decisions over all classes fall back on the
    tasks' own heads.
    """

    label_check: bool = True
    """Refuse a task whose labels say nothing about its images."""

    max_forgetting: float = 3.0
    """Accuracy that an older task may lose, estimated without its images. Between 0 and 100, in percentage
    points.
    """

    on_forgetting: str = "heads-only"
    """A task that costs more: learn its heads on the frozen backbone, or refuse it."""

    few_shot: int = 30
    """With fewer images or signals a class, on average, learn heads on the frozen backbone; as many fewer
    as there are more epochs than the default. 0: no task has too few. A whole number, 0 or more, in images
    a class.
    """

    train: str = "auto"
    """What a task trains: its heads on the frozen backbone, or the centers too, or of a bundle built for it
    whole kernels; auto: these where images held out in the first epoch say that it pays. Of fewer images
    than `few_shot`, heads.
    """

    skip_broken: bool = False
    """Leave out images or signals that cannot be read, and say which."""

    checkpoint_seconds: float = 20.0
    """Time between progress checkpoints. 0 or more, and finite, in seconds."""

    prefix_cache: str = "off"
    """Where features of the frozen stem are kept; auto: memory, if they fit."""

    prefix_views: int = 2
    """In how many views, mirrored and moved, of each image. A whole number from 1 to 64."""

    precision: str = "auto"
    """What the graphs run in; auto: what doctor found best on this device, else the bundle's own."""

    memory_budget: int | None = None
    """What the whole process may have resident, imports included; profile and micro-batches are then
    chosen. A whole number, 1 or more, in bytes. None: no limit.
    """

    micro_batch: int | None = None
    """Images of a batch in memory at once. A whole number, 1 or more, in images. None: the whole batch."""

    profile: str | None = None
    """small: less memory, slower steps. None: fast, unless `memory_budget` needs small."""
