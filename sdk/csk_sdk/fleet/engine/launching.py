"""How a device's part of a round is started: what becomes of it is that device's own trouble. Needs NVFlare."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from nvflare.apis.fl_constant import FLContextKey, FLMetaKey, JobConstants
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_launcher_spec import JobHandleSpec, JobReturnCode
from nvflare.app_common.job_launcher.client_process_launcher import ClientProcessJobLauncher


class DeviceLauncher(ClientProcessJobLauncher):  # type: ignore[misc]
    """NVFlare's own, but for how a process has ended.

    Of one that was killed, for want of memory for instance, or could not begin, a device would tell the server, which
    would end the round for all others as well. Here the device has just not answered.
    """

    def launch_job(self, job_meta: dict[str, Any], fl_ctx: FLContext) -> JobHandleSpec:
        """Start it."""
        workspace = fl_ctx.get_prop(FLContextKey.WORKSPACE_OBJECT)
        folder = workspace.get_run_dir(job_meta.get(JobConstants.JOB_ID))
        told = os.path.join(folder, FLMetaKey.PROCESS_RC_FILE)  # noqa: PTH118
        return _Handle(super().launch_job(job_meta, fl_ctx), told)


class _Handle(JobHandleSpec):  # type: ignore[misc]
    def __init__(self, handle: JobHandleSpec, told: str) -> None:
        self._handle, self._told = handle, told

    def terminate(self) -> None:
        """End it."""
        self._handle.terminate()

    def poll(self) -> int:
        """That it has ended, or not."""
        running: int = JobReturnCode.UNKNOWN
        ended: int = JobReturnCode.SUCCESS
        return running if self._handle.poll() == running else ended

    def wait(self) -> None:
        """Until it has ended; and forget what it said of itself."""
        self._handle.wait()
        with suppress(FileNotFoundError):
            os.remove(self._told)  # noqa: PTH107
