"""The client's side: an executor around the one that trains.

Guarantee: this executor answers tasks of secure rounds and no others, and what it answers are frames of a
session whose parameters the party's own policy accepts. It calls the inner executor once a round, with the
model and configuration that the round is bound to, and its answer stays here.

Between tasks the session lies sealed in memory; a client that is started again in mid-round is a dropout. Not
covered: whoever may submit a job to a client's NVFlare can ship another one, without this executor. Its site
policy (job signing, `byoc` rights) decides that.
"""

import logging
import os
from pathlib import Path
from typing import Any

from nvflare.apis.dxo import DataKind, MetaKey, from_shareable
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal

from merveil.fl.deploy.member import Member
from merveil.fl.deploy.step import begin, go_on
from merveil.fl.deploy.task import Task
from merveil.fl.nvflare import arrays
from merveil.protocols.codec import Codec, Codes
from merveil.protocols.errors import AbortCode, Aborted, LocalError, RemoteError
from merveil.protocols.primitives.sign import sign

# Not the component's own log_error, which fires an event that NVFlare may forward to the server.
_log = logging.getLogger("merveil.nvflare")


class SecureExecutor(Executor):
    """`SecureExecutor(executor)`, for the task "merveil".

    executor: the one that trains; it is sent a WEIGHTS DXO under the name `task` and answers WEIGHTS or
    WEIGHT_DIFF, weighted by NUM_STEPS_CURRENT_ROUND. homes: folder that holds one folder a client, named as
    the client, with its keys, roster and ledger; by default MERVEIL_HOME is the client's own. max_cut:
    largest share of coordinates that may be cut by the clip.
    """

    def __init__(
        self, executor: Executor, task: str = "train", homes: str = "", max_cut: float = 0.01
    ) -> None:
        super().__init__()
        self.executor, self.task, self.homes, self.max_cut = executor, task, homes, max_cut
        self._open: tuple[Task, bytes] | None = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        self.executor.handle_event(event_type, fl_ctx)

    def execute(
        self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal
    ) -> Shareable:
        if task_name != arrays.TASK:
            _log.error("task %r refused: this client takes part in secure rounds only", task_name)
            return make_reply(ReturnCode.TASK_UNSUPPORTED)
        try:
            return _answer(self._step(shareable, fl_ctx, abort_signal))
        except Aborted as error:
            self._open = None
            return _answer({"code": error.code.name, "why": str(error)})
        except RemoteError as error:
            return _answer({"code": (error.code or AbortCode.MALFORMED_FRAME).name, "why": str(error)})
        except LocalError as error:
            # The text may speak about the data, so it stays here; the server gets the code.
            _log.error("round refused at this client: %s", error)
            code = "LOCAL" if error.code is None else error.code.name
            return _answer({"code": code, "why": "refused at the client; its log says why"})

    def _step(self, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> dict[str, Any]:
        asked = shareable.pop(arrays.TASK, None)
        if not isinstance(asked, dict):
            raise RemoteError("the task holds no record of a round", (0,), AbortCode.MALFORMED_FRAME)
        member = Member.load(self._home(fl_ctx))
        train = (shareable, asked, fl_ctx, abort_signal)
        if "task" in asked:
            task = Task.decode(_bytes(asked["task"]))
            self._open = None  # a session of an earlier attempt ends here
            done = begin(member, task, self._train(task, *train) if "config" in asked else None)
        else:
            if self._open is None:
                raise Aborted(AbortCode.STATE_ROLLBACK, "this client is in no session")
            task, snapshot = self._open
            codes = self._train(task, *train) if "config" in asked else None
            done = go_on(member, task, snapshot, [_bytes(f) for f in asked.get("frames", [])], codes)
        self._open = (task, done.snapshot) if done.snapshot else None
        fields = client_fields(task, member, fl_ctx.get_job_id(), fl_ctx.get_identity_name())
        proof = sign(member.identity.sign_key, arrays.PURPOSE, *fields)
        record = {"index": member.index, "proof": proof, "frames": list(done.frames)}
        return record if done.code is None else {**record, "code": done.code.name, "why": done.why}

    def _train(
        self, task: Task, shareable: Shareable, asked: dict[str, Any], fl_ctx: FLContext, signal: Signal
    ) -> Codes:
        """The inner executor's update as codes, from exactly the model and configuration of the round."""
        model, config = arrays.checked(from_shareable(shareable).data), str(asked["config"])
        if (arrays.model_hash(model), arrays.config_hash(config)) != (task.model_hash, task.config_hash):
            raise Aborted(AbortCode.MODEL_MISMATCH, "model or configuration is not the announced one", (0,))
        sent = {name: array.copy() for name, array in model.items()}  # executors change theirs in place
        answer = self.executor.execute(self.task, shareable, fl_ctx, signal)
        if answer is None or answer.get_return_code() != ReturnCode.OK:
            raise LocalError("the executor's training gave no result")
        dxo = from_shareable(answer)
        if dxo.data_kind not in (DataKind.WEIGHTS, DataKind.WEIGHT_DIFF):
            raise LocalError(f"the executor answered {dxo.data_kind}, not WEIGHTS or WEIGHT_DIFF")
        flat = arrays.difference(sent, dxo.data, absolute=dxo.data_kind == DataKind.WEIGHTS)
        codec = Codec(task.params())
        cut = codec.cut(flat)
        if cut > self.max_cut * flat.size:
            raise LocalError(
                f"{cut} of {flat.size} coordinates exceed clip {task.clip}", AbortCode.INPUT_RANGE
            )
        return codec.encode(flat, _weight(dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND), task))

    def _home(self, fl_ctx: FLContext) -> Path:
        if self.homes:
            return Path(self.homes) / str(fl_ctx.get_identity_name())
        found = os.environ.get("MERVEIL_HOME")
        if not found:
            raise LocalError("this client has no merveil folder: set MERVEIL_HOME")
        return Path(found)


def _weight(value: Any, task: Task) -> int:
    if task.max_weight == 1:
        return 1
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= task.max_weight:
        raise LocalError(
            f"NUM_STEPS_CURRENT_ROUND must be whole, from 1 to {task.max_weight}, not {value!r}",
            AbortCode.INPUT_RANGE,
        )
    return value


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise RemoteError("the task holds something else than frames", (0,), AbortCode.MALFORMED_FRAME)
    return value


def client_fields(task: Task, party: Any, job: str, client: str) -> tuple[bytes, ...]:
    """What a client's proof is bound to: the round's context, the job, its name. party: has a roster."""
    return (task.context(party.roster).digest, job.encode(), client.encode())


def _answer(record: dict[str, Any]) -> Shareable:
    found = make_reply(ReturnCode.OK)
    found[arrays.TASK] = record
    return found
