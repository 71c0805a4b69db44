"""The server's side: a workflow whose rounds are secure sums.

Guarantee: the server holds no key of any member. Which client speaks for which member is decided by a
signature of the member over the round's context, the job and the client's name, checked against the roster.
A client that is lost at any task is a dropout. Aborted rounds are tried again while no answer has left.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nvflare.apis.controller_spec import ClientTask
from nvflare.apis.controller_spec import Task as FlareTask
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from merveil.fl.deploy.counter import RoundCounter
from merveil.fl.deploy.desk import RoundDesk
from merveil.fl.deploy.member import Public
from merveil.fl.deploy.task import Task
from merveil.fl.nvflare import arrays
from merveil.fl.nvflare.executor import client_fields
from merveil.protocols.codec import Codec
from merveil.protocols.errors import Aborted, LocalError
from merveil.protocols.primitives.sign import verify


class SecureController(Controller):
    """The workflow of a job. All arguments are plain values, as NVFlare's job files need them.

    home: the server's folder with federation.json and roster.bin. model, out: .npz files, of the first
    round's model and of the latest. clip: largest magnitude of a coordinate of an update; bits, max_weight:
    as in Params. exchange_seconds, train_seconds: the longest a task may take, without and with training.
    attempts: of a round while no answer has left. max_aborted: rounds without a sum before the job ends.
    """

    def __init__(
        self,
        home: str,
        model: str,
        out: str,
        rounds: int = 1,
        scheme: str = "secagg+",
        clip: float = 1.0,
        bits: int = 20,
        max_weight: int = 1024,
        exchange_seconds: int = 120,
        train_seconds: int = 3600,
        attempts: int = 2,
        max_aborted: int = 3,
    ) -> None:
        super().__init__()
        self.home, self.model, self.out, self.rounds = home, model, out, rounds
        self.scheme, self.clip, self.bits, self.max_weight = scheme, clip, bits, max_weight
        self.exchange_seconds, self.train_seconds = exchange_seconds, train_seconds
        self.attempts, self.max_aborted = attempts, max_aborted

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Nothing: what may fail does so in `control_flow`, which ends the job with the reason."""

    def stop_controller(self, fl_ctx: FLContext) -> None:
        """Nothing is open between tasks."""

    def process_result_of_unknown_task(
        self, client: Any, task_name: str, client_task_id: str, result: Shareable, fl_ctx: FLContext
    ) -> None:
        self.log_info(fl_ctx, f"a late answer of {client.name} changes nothing")

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        try:
            self._run(abort_signal, fl_ctx)
        except (Aborted, LocalError, OSError) as error:
            self.system_panic(f"{type(error).__name__}: {error}", fl_ctx)

    def _run(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        self._public = Public.load(Path(self.home))
        counter = RoundCounter(Path(self.home) / "rounds.json", self._public.roster.federation)
        found, aborted, round_ = arrays.load(Path(self.model)), 0, 0
        while round_ < self.rounds and not abort_signal.triggered:
            try:
                found = self._attempts(found, round_, counter.next(), abort_signal, fl_ctx)
            except Aborted:
                aborted += 1
                if aborted >= self.max_aborted or abort_signal.triggered:
                    raise
                continue
            aborted, round_ = 0, round_ + 1
            arrays.save(Path(self.out), found)

    def _attempts(
        self, model: arrays.Arrays, round_: int, number: int, abort_signal: Signal, fl_ctx: FLContext
    ) -> arrays.Arrays:
        for attempt in range(1, self.attempts + 1):
            try:
                return self._round(model, round_, number, attempt, abort_signal, fl_ctx)
            except Aborted as error:
                self.log_warning(fl_ctx, f"round {number}, attempt {attempt} has no sum: {error}")
                if error.released or attempt == self.attempts:
                    raise
        raise LocalError("a round has at least one attempt")

    def _round(
        self,
        model: arrays.Arrays,
        round_: int,
        number: int,
        attempt: int,
        abort_signal: Signal,
        fl_ctx: FLContext,
    ) -> arrays.Arrays:
        config = json.dumps({"round": round_, "rounds": self.rounds})
        task = Task(
            scheme=self.scheme,
            round=number,
            attempt=attempt,
            cohort=len(self._public.roster),
            dim=arrays.size_of(model),
            bits=self.bits,
            clip=float(self.clip),
            max_weight=self.max_weight,
            threshold=0,
            model_hash=arrays.model_hash(model),
            config_hash=arrays.config_hash(config),
        )
        desk = RoundDesk(task, self._public.roster)
        seats = _Seats(task, self._public, fl_ctx.get_job_id())
        clients = [client.name for client in fl_ctx.get_engine().get_clients()]
        records: Mapping[str, dict[str, Any]] = {c: {"task": task.encode()} for c in clients}
        while not desk.done:
            due = desk.phase.value == task.vector_phase
            tasks = {c: self._task(r, model if due else None, config) for c, r in records.items()}
            for client, answer in self._exchange(tasks, abort_signal, fl_ctx).items():
                if "code" in answer:
                    self.log_warning(
                        fl_ctx, f"{client} reports {answer['code']}: {answer.get('why', '')}"[:300]
                    )
                index, frames = seats.member(client, answer), answer.get("frames", [])
                if index and isinstance(frames, list):
                    desk.take(index, [f for f in frames if isinstance(f, bytes)])
            desk.close()
            down: dict[str, dict[str, Any]] = {}
            for index, data in desk.outgoing():
                down.setdefault(seats.client[index], {"frames": []})["frames"].append(data)
            records = down
        outcome = desk.result()
        mean = Codec(desk.params).decode(outcome.codes, len(outcome.survivors))
        names = ", ".join(self._public.roster.member(i).name for i in outcome.survivors)
        self.log_info(fl_ctx, f"round {round_ + 1} of {self.rounds}: the sum holds {names}")
        return arrays.moved(model, mean.value)

    def _task(self, record: dict[str, Any], model: arrays.Arrays | None, config: str) -> FlareTask:
        data = Shareable()
        if model is not None:
            data = DXO(DataKind.WEIGHTS, data=dict(model)).to_shareable()
            record = {**record, "config": config}
        data[arrays.TASK] = record
        seconds = self.exchange_seconds if model is None else self.train_seconds
        return FlareTask(arrays.TASK, data, timeout=seconds, result_received_cb=_kept)

    def _exchange(
        self, tasks: Mapping[str, FlareTask], abort_signal: Signal, fl_ctx: FLContext
    ) -> dict[str, dict[str, Any]]:
        """Send each client its own task; what came back when all have answered or their time is up."""
        for client, task in tasks.items():
            self.send(task, fl_ctx, targets=[client])
        while any(task.completion_status is None for task in tasks.values()):
            if abort_signal.triggered:
                self.cancel_all_tasks(fl_ctx=fl_ctx)
                raise LocalError("the job was stopped")
            time.sleep(0.02)
        found = {client: task.get_prop(arrays.TASK) for client, task in tasks.items()}
        return {client: answer for client, answer in found.items() if isinstance(answer, dict)}


class _Seats:
    """Which client speaks for which member, as proven in this attempt. client: by roster index."""

    def __init__(self, task: Task, public: Public, job: str) -> None:
        self._task, self._public, self._job = task, public, job
        self.client: dict[int, str] = {}

    def member(self, client: str, answer: Mapping[str, Any]) -> int:
        """The roster index that a client proves to speak for; 0 where it proves nothing or comes second."""
        index, proof, roster = answer.get("index"), answer.get("proof"), self._public.roster
        if type(index) is not int or not isinstance(proof, bytes) or not 1 <= index <= len(roster):
            return 0
        fields = client_fields(self._task, self._public, self._job, client)
        if not verify(roster.member(index).sign_key, proof, arrays.PURPOSE, *fields):
            return 0
        return index if self.client.setdefault(index, client) == client else 0


def _kept(client_task: ClientTask, fl_ctx: FLContext) -> None:
    """Called by the engine with a client's answer."""
    if client_task.result is not None:
        client_task.task.set_prop(arrays.TASK, client_task.result.get(arrays.TASK))
