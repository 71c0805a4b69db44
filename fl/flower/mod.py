"""The client mod: an app's training behind sessions of a scheme.

Guarantee: from a training message nothing leaves this node but frames of a session whose parameters the
party's own policy accepts. A training message without a session is refused, since a server that simply asks
in clear would get the update; so is an answer to any other message that holds arrays.

Between messages the session lies sealed in the context's state, which is the engine's store; the ledger that
makes a snapshot good for once lies in the party's own folder. Put this mod first in the list, so that other
mods change the update before it is masked.

Not covered: the app's code itself. Whoever may ship code to a SuperNode reads its data; pin bundles with
`--trusted-entities`, or use `merveil site`, which runs what is installed and nothing that a server sends.
"""

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable

from merveil.fl.deploy.member import Member
from merveil.fl.deploy.step import Step, begin, go_on
from merveil.fl.deploy.task import Task
from merveil.fl.flower.records import RECORD, Layout, Plan, content_hashes, weight_of
from merveil.fl.gate import FILE, LENIENT, ModelGate, architecture
from merveil.fl.update import Layout as Flat
from merveil.protocols.codec import Codec, Codes
from merveil.protocols.errors import AbortCode, Aborted, LocalError, RemoteError
from merveil.protocols.primitives.sign import sign

NODE_PURPOSE = "flower/1/node"
REFUSED = 403  # Error code of a message that this mod does not let through
_log = logging.getLogger("merveil.flower")


class SecureMod:
    """`ClientApp(mods=[SecureMod()])`.

    home: the party's folder (identity.key, ledger, federation.json, roster.bin); by default the node's config
    value `merveil-home`, else the environment's MERVEIL_HOME. A sealed key's passphrase is read from the file
    that MERVEIL_PASSPHRASE_FILE names. max_cut: largest share of coordinates that may be cut by the clip.
    architecture: hash of the network that was agreed (`fl.gate.architecture`); empty: the first that is sent
    is kept in the folder. judge: whether layers that look made to leak are refused (docs/attacks.md).
    """

    def __init__(
        self,
        home: str | Path | None = None,
        *,
        max_cut: float = 0.01,
        architecture: str = "",
        judge: bool = True,
    ) -> None:
        self._home = home
        self._max_cut = max_cut
        self._architecture, self._judge = architecture, judge

    def __call__(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        if RECORD not in message.content.config_records:
            return self._in_clear(message, context, call_next)
        try:
            return self._secure(message, context, call_next)
        except Aborted as error:
            context.state.pop(RECORD, None)
            return _tell(message, error.code, str(error))
        except RemoteError as error:
            return _tell(message, error.code or AbortCode.MALFORMED_FRAME, str(error))
        except LocalError as error:
            # The text may speak about the data, so it stays here; the server gets the code.
            _log.error("round refused at this node: %s", error)
            return _tell(message, error.code, "refused at the node; its log says why")

    def _in_clear(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        if message.metadata.message_type.split(".")[0] == "train":
            return Message(Error(REFUSED, "this node trains only inside a secure round"), reply_to=message)
        reply = call_next(message, context)
        if reply.has_content() and reply.content.array_records:
            return Message(
                Error(REFUSED, "this node sends no arrays outside a secure round"), reply_to=message
            )
        return reply

    def _secure(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        asked = message.content.config_records[RECORD]
        member = Member.load(self._folder(context), _passphrase())
        if "task" in asked:
            task = Task.decode(_bytes(asked, "task"))
            context.state.pop(RECORD, None)  # a session of an earlier attempt ends here
            codes = self._train(message, context, call_next, task) if "plan" in asked else None
            done = begin(member, task, codes)
        else:
            state = context.state.config_records.get(RECORD)
            if state is None:
                raise Aborted(AbortCode.STATE_ROLLBACK, "this node is in no session")
            task = Task.decode(_bytes(state, "task"))
            codes = self._train(message, context, call_next, task) if "plan" in asked else None
            done = go_on(member, task, _bytes(state, "snapshot"), _frames(asked), codes)
        _remember(context, task, done)
        return _answer(message, member, task, done)

    def _train(self, message: Message, context: Context, call_next: ClientAppCallable, task: Task) -> Codes:
        """The app's update as codes, from exactly the model and configuration that the round is bound to."""
        asked = message.content.config_records.pop(RECORD)
        assert isinstance(asked, ConfigRecord)
        encoded = _bytes(asked, "plan")
        plan = Plan.decode(encoded)
        if content_hashes(message.content, encoded) != (task.model_hash, task.config_hash):
            raise Aborted(AbortCode.MODEL_MISMATCH, "model or configuration is not the announced one", (0,))
        layout = Layout(next(iter(message.content.array_records.values())), plan)
        params = task.params()
        self._admit(layout, context, message.metadata.run_id)
        reply = call_next(message, context)
        if not reply.has_content() or len(reply.content.array_records) != 1:
            raise LocalError("the app's training gave no single ArrayRecord", AbortCode.SHAPE_MISMATCH)
        metrics = next(iter(reply.content.metric_records.values()), None)
        if metrics is None:
            raise LocalError("the app's training gave no MetricRecord", AbortCode.SHAPE_MISMATCH)
        flat = layout.vector(next(iter(reply.content.array_records.values())), metrics, task.clip)
        codec = Codec(params)
        codes = codec.encode(flat, weight_of(metrics, plan, task.max_weight))
        cut = codec.cut(flat)
        if cut > self._max_cut * flat.size:
            raise LocalError(
                f"{cut} of {flat.size} coordinates exceed clip {task.clip}: have clip raised at the "
                "server, or raise max_cut here",
                AbortCode.INPUT_RANGE,
            )
        return codes

    def _admit(self, layout: Layout, context: Context, run: int) -> None:
        """The gate's word on the model that was sent, before the app sees it. Aborted: see ModelGate."""
        flat = Flat.of([(name, layout.model[name].shape) for name in layout.names])
        params = np.concatenate([layout.model[name].reshape(-1) for name in layout.names])
        shape = architecture("flower", {}, flat)
        gate = ModelGate(self._folder(context) / FILE, self._architecture, None if self._judge else LENIENT)
        gate.admit(flat, params, shape, training=f"flower run {run}")

    def _folder(self, context: Context) -> Path:
        found = self._home or context.node_config.get("merveil-home") or os.environ.get("MERVEIL_HOME")
        if not found:
            raise LocalError(
                "this node has no merveil folder: set merveil-home in its --node-config, or MERVEIL_HOME"
            )
        return Path(str(found))


def _passphrase() -> str | None:
    path = os.environ.get("MERVEIL_PASSPHRASE_FILE")
    if not path:
        return None
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return lines[0] if lines else ""


def _bytes(record: ConfigRecord, name: str) -> bytes:
    value: Any = record.get(name)
    if not isinstance(value, bytes):
        raise RemoteError(f"the message has no {name}", (0,), AbortCode.MALFORMED_FRAME)
    return value


def _frames(record: ConfigRecord) -> list[bytes]:
    value: Any = record.get("frames")
    if not isinstance(value, list) or not all(isinstance(v, bytes) for v in value):
        raise RemoteError("the message has no frames", (0,), AbortCode.MALFORMED_FRAME)
    return value


def _remember(context: Context, task: Task, done: Step) -> None:
    if done.snapshot:
        context.state[RECORD] = ConfigRecord({"task": task.encode(), "snapshot": done.snapshot})
    else:
        context.state.pop(RECORD, None)


def _answer(message: Message, member: Member, task: Task, done: Step) -> Message:
    """The step's frames, with a proof that this node acts for that roster member in this round."""
    node = message.metadata.dst_node_id
    proof = sign(
        member.identity.sign_key, NODE_PURPOSE, *node_fields(task, member, message.metadata.run_id, node)
    )
    record = ConfigRecord({"index": member.index, "proof": proof, "frames": list(done.frames)})
    if done.code is not None:
        record["code"], record["why"] = done.code.name, done.why
    return Message(RecordDict({RECORD: record}), reply_to=message)


def node_fields(task: Task, party: Any, run: int, node: int) -> tuple[bytes, ...]:
    """What a node's proof is bound to: the round's context, the engine's run and node. party: has a
    roster."""
    return (task.context(party.roster).digest, run.to_bytes(8, "big"), node.to_bytes(8, "big"))


def _tell(message: Message, code: AbortCode | None, why: str) -> Message:
    record = ConfigRecord({"code": "LOCAL" if code is None else code.name, "why": why})
    return Message(RecordDict({RECORD: record}), reply_to=message)
