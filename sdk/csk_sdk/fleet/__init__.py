"""A fleet that learns together: what one device has learned, all know, and no image leaves a device.

    from csk_sdk import fleet

    fleet.export(learner, "kitchen.cskc")  # on each device
    fleet.merge(["kitchen.cskc", "hall.cskc", "yard.cskc"], "merged.cskc")  # anywhere
    fleet.apply(learner, "merged.cskc")  # on each device

Files travel as a fleet likes: by USB stick, rsync, MQTT, HTTPS. docs/fleet.md, and docs/fleet-privacy.md for what a
file reveals.
"""

from csk_sdk.fleet.applying import ApplyReport, apply
from csk_sdk.fleet.exporting import ExportReport, export
from csk_sdk.fleet.inspecting import Inspection, inspect
from csk_sdk.fleet.merging import MergeReport, merge

__all__ = ["ApplyReport", "ExportReport", "Inspection", "MergeReport", "apply", "export", "inspect", "merge"]
