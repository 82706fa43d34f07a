"""The server app: one round, as NVFlare runs it. Needs NVFlare."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nvflare.apis.client import Client
from nvflare.apis.controller_spec import ClientTask, Task
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import ReturnCode, Shareable
from nvflare.apis.signal import Signal

from csk_sdk.errors import CskError
from csk_sdk.fleet.engine.exchange import Server
from csk_sdk.fleet.engine.sites import read_server
from csk_sdk.fleet.engine.words import APPLIED, APPLY, CONTRIBUTE, FILE, REFUSED, REPORT
from csk_sdk.state.atomic import replace_file
from csk_sdk.state.sealing import seal


class FleetRound(Controller):  # type: ignore[misc]
    """Asks every device that is there for what it has learned, merges what is kept, and gives it to every device.

    Each of the two steps ends when all have answered, `grace` seconds after `enough` have, or after `wait` seconds.
    Whoever answers later is kept, and counts in the next round. With `only`, one of the two steps is done, and nothing
    is merged: what devices have learned is collected, or what was merged last is given out. The others are what
    `fleet.merge` takes.
    """

    def __init__(
        self,
        wait: float,
        enough: int = 0,
        grace: float = 0.0,
        only: str = "",
        same: Mapping[str, str] | None = None,
        without: Iterable[str] = (),
        accept: Iterable[str] = (),
    ) -> None:
        super().__init__(task_check_period=0.1)
        self._wait, self._enough, self._grace = wait, enough, grace
        self._only = only
        self._how = (dict(same or {}), tuple(without), tuple(accept))
        self._answers: dict[str, dict[str, Any]] = {CONTRIBUTE: {}, APPLY: {}}
        self._lock = threading.Lock()
        self._server: Server | None = None

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Read where files are kept."""
        local = Path(fl_ctx.get_engine().get_workspace().get_site_config_dir())
        try:
            self._server = Server(read_server(local))
        except CskError as error:
            self._end(fl_ctx, {**_nothing(), "ended": str(error)})

    def stop_controller(self, fl_ctx: FLContext) -> None:
        """Nothing is left open."""

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """The round."""
        if self._server is None:
            return
        report = _nothing()
        try:
            if self._only != APPLY:
                report["asked"] = self._ask(CONTRIBUTE, Shareable(), abort_signal, fl_ctx)
            if not self._only and not abort_signal.triggered:
                report["merged"] = self._server.merge(*self._how).to_json()
            if self._only != CONTRIBUTE and not abort_signal.triggered:
                carried = Shareable()
                carried[FILE] = self._server.merged()
                report["asked"] = sorted({*report["asked"], *self._ask(APPLY, carried, abort_signal, fl_ctx)})
        except (CskError, OSError) as error:
            report["ended"] = str(error)
        if abort_signal.triggered:
            report["ended"] = report["ended"] or "It was stopped: the server's log says by whom."
        with self._lock:
            report["contributed"], report["applied"] = map(dict, self._answers.values())
        self._end(fl_ctx, report)

    def process_result_of_unknown_task(
        self, client: Client, task_name: str, client_task_id: str, result: Shareable, fl_ctx: FLContext
    ) -> None:
        """Too late for this round: kept for the next."""
        self._take(client.name, task_name, result)

    def _ask(self, what: str, data: Shareable, abort_signal: Signal, fl_ctx: FLContext) -> list[str]:
        """Ask all who are there, until enough have answered: who was asked."""
        there = [one.name for one in fl_ctx.get_engine().get_clients()]
        if not there:
            return []
        task = Task(
            name=what, data=data, timeout=max(1, round(self._wait)), result_received_cb=self._answered
        )
        self.broadcast_and_wait(
            task=task,
            fl_ctx=fl_ctx,
            targets=there,
            min_responses=min(self._enough or len(there), len(there)),
            wait_time_after_min_received=round(self._grace),
            abort_signal=abort_signal,
        )
        return sorted(there)

    def _answered(self, client_task: ClientTask, fl_ctx: FLContext) -> None:
        self._take(client_task.client.name, client_task.task.name, client_task.result)
        client_task.result = None

    def _take(self, name: str, task: str, answer: Shareable | None) -> None:
        found: dict[str, Any]
        if answer is None or answer.get_return_code() != ReturnCode.OK:
            code = None if answer is None else answer.get_return_code()
            found = {REFUSED: f"Its part of the round failed ({code}): its log says why."}
        elif REFUSED in answer:
            found = {REFUSED: str(answer[REFUSED])}
        elif task == CONTRIBUTE:
            found = self._keep(answer.get(FILE))
        else:
            found = {APPLIED: answer.get(APPLIED)}
        with self._lock:
            self._answers.setdefault(task, {})[name] = found

    def _keep(self, sent: Any) -> dict[str, Any]:
        if not isinstance(sent, bytes) or self._server is None:
            return {REFUSED: "It sent no file."}
        try:
            return {"receipt": asdict(self._server.receive(sent))}
        except CskError as error:
            return {REFUSED: str(error)}

    def _end(self, fl_ctx: FLContext, report: dict[str, Any]) -> None:
        workspace = fl_ctx.get_engine().get_workspace()
        replace_file(Path(workspace.get_run_dir(fl_ctx.get_job_id())) / REPORT, seal(report))


def _nothing() -> dict[str, Any]:
    return {"asked": [], "contributed": {}, "merged": None, "applied": {}, "ended": ""}
