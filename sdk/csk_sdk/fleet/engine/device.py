"""The client app: what NVFlare runs on a device for the time of a round. Needs NVFlare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal

from csk_sdk.errors import CskError
from csk_sdk.fleet.engine.exchange import Device
from csk_sdk.fleet.engine.sites import read_device
from csk_sdk.fleet.engine.words import APPLIED, APPLY, CONTRIBUTE, FILE, REFUSED


class FleetDevice(Executor):  # type: ignore[misc]
    """Answers what `FleetRound` asks. What it reads and writes is said by the device's kit, and by no job."""

    def execute(
        self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal
    ) -> Shareable:
        """One task: `CONTRIBUTE` answers with a file, `APPLY` takes one. A sentence where it cannot."""
        try:
            return self._answer(task_name, shareable, fl_ctx, abort_signal)
        except CskError as error:
            return _reply(**{REFUSED: str(error)})

    def _answer(self, task: str, asked: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        local = Path(fl_ctx.get_engine().get_workspace().get_site_config_dir())
        device = Device(
            read_device(local),
            fl_ctx.get_identity_name(),
            lambda: bool(abort_signal.triggered),
            lambda said: self.log_info(fl_ctx, said),
        )
        if task == CONTRIBUTE:
            return _reply(**{FILE: device.contribute()})
        if task == APPLY:
            return _reply(**{APPLIED: device.take(bytes(asked[FILE])).to_json()})
        return make_reply(ReturnCode.TASK_UNKNOWN)


def _reply(**content: Any) -> Shareable:
    reply = make_reply(ReturnCode.OK)
    reply.update(content)
    return reply
