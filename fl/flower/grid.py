"""The server's grid: training messages become the exchanges of a scheme, everything else passes through.

For the strategy a round has one reply: the mean over the survivors, with their total weight. Strategies
that are functions of the weighted mean (FedAvg, FedProx, FedAdam, ...) work as they are; those that look at
single replies (median, trimmed mean, Krum) cannot, and `secured` refuses them.

The server holds no key of any member. Which node speaks for which member is decided by a signature of the
member over the round's context, the run and the node id, checked against the roster: the engine can neither
add a member nor let one node speak for another. It can lose messages; whoever is lost is a dropout.
"""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from merveil.fl.deploy.counter import RoundCounter
from merveil.fl.deploy.desk import Notes, RoundDesk
from merveil.fl.deploy.member import Public
from merveil.fl.deploy.task import Task
from merveil.fl.flower.mod import NODE_PURPOSE, node_fields
from merveil.fl.flower.polling import ask
from merveil.fl.flower.records import RECORD, Layout, Plan, content_hashes
from merveil.protocols.codec import Codec
from merveil.protocols.errors import AbortCode, Aborted, LocalError
from merveil.protocols.primitives.sign import verify

ABORTED = 409  # Error code of the replies that stand for a round without a sum
_log = logging.getLogger("merveil.flower")


@dataclass(frozen=True)
class Settings:
    """Public settings of all rounds. bits, clip, max_weight, threshold as in Params (threshold None: the
    scheme's own). attempts: tries a round while no answer has left. exchange_timeout: seconds for exchanges
    without training. max_aborted: rounds in a row without a sum before the run ends with Aborted."""

    scheme: str = "secagg+"
    clip: float = 1.0
    bits: int = 20
    max_weight: int = 1024
    threshold: int | None = None
    attempts: int = 2
    exchange_timeout: float = 120.0
    max_aborted: int = 3
    plan: Plan = field(default_factory=Plan)


@dataclass(frozen=True)
class Report:
    """One training round as the server knows it. code: of the abort where there is no sum."""

    round: int
    attempt: int
    survivors: tuple[str, ...]
    weight: int
    seconds: float
    uplink_bytes: int
    downlink_bytes: int
    refused: tuple[tuple[int, AbortCode | None], ...]
    told: Mapping[int, str]
    code: AbortCode | None = None
    why: str = ""


class SecureGrid(Grid):
    """A Grid over another one. home: the server's folder (federation.json, roster.bin, and its round
    counter)."""

    def __init__(
        self, grid: Grid, home: str | Path, settings: Settings, executor: Executor | None = None
    ) -> None:
        self._grid = grid
        self._settings = settings
        self._executor = executor
        self._public = Public.load(Path(home))
        self._counter = RoundCounter(Path(home) / "rounds.json", self._public.roster.federation)
        self._aborted = 0
        self.reports: list[Report] = []

    # What passes through

    def set_run(self, run: Run) -> None:
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        found = list(messages)
        if any(_is_train(m) for m in found):
            raise LocalError("training goes through send_and_receive, which runs the secure round")
        return self._grid.push_messages(found)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self._grid.pull_messages(message_ids)

    # Rounds

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Run a secure round for training messages; pass any others on.

        Returns one reply with the mean, or, where the round has no sum, error replies that carry the code.
        Raises Aborted after `max_aborted` rounds in a row without a sum, LocalError for messages that are not
        all the same.
        """
        found = list(messages)
        train = [m for m in found if _is_train(m)]
        if not train:
            return list(ask(self._grid, found, timeout))
        if len(train) != len(found) or any(m.content.object_id != train[0].content.object_id for m in train):
            raise LocalError("a secure round sends every node the same training message")
        nodes = sorted({m.metadata.dst_node_id for m in train} | set(self._grid.get_node_ids()))
        try:
            reply = self._attempts(train[0], nodes, timeout)
        except Aborted as error:
            self._aborted += 1
            if self._aborted >= self._settings.max_aborted:
                raise
            return [Message(Error(ABORTED, str(error)), reply_to=m) for m in train]
        self._aborted = 0
        return [reply]

    def _attempts(self, first: Message, nodes: Sequence[int], timeout: float | None) -> Message:
        """Try a round again with the next attempt while no answer was asked for; the last abort passes."""
        round_ = self._counter.next()
        for attempt in range(1, self._settings.attempts + 1):
            begun = time.monotonic()
            notes = Notes()
            try:
                return self._round(first, nodes, timeout, round_, attempt, notes)
            except Aborted as error:
                seconds = time.monotonic() - begun
                self.reports.append(_report(round_, attempt, (), 0, seconds, notes, error.code, str(error)))
                _log.warning("round %d, attempt %d has no sum: %s", round_, attempt, error)
                if error.released or attempt == self._settings.attempts:
                    raise
        raise LocalError("a round has at least one attempt")

    def _round(
        self,
        first: Message,
        nodes: Sequence[int],
        timeout: float | None,
        round_: int,
        attempt: int,
        notes: Notes,
    ) -> Message:
        settings, begun = self._settings, time.monotonic()
        plan = settings.plan.encode()
        layout = Layout(next(iter(first.content.array_records.values())), settings.plan)
        task = self._task(first, plan, layout.dim, round_, attempt)
        desk = RoundDesk(task, self._public.roster, self._executor, notes)
        exchange = _Exchange(self._grid, first, task, self._public, desk)
        exchange.invite(nodes, plan, timeout, settings.exchange_timeout)
        while not desk.done:
            exchange.next(plan, timeout, settings.exchange_timeout)
        outcome = desk.result()
        mean = Codec(desk.params).decode(outcome.codes, len(outcome.survivors))
        arrays, metrics = layout.restore(mean.value, task.clip)
        names = tuple(self._public.roster.member(i).name for i in outcome.survivors)
        seconds = time.monotonic() - begun
        self.reports.append(_report(round_, attempt, names, mean.weight, seconds, notes, None, ""))
        _log.info(
            "round %d: the mean of %d members, weight %d, in %.1f s", round_, len(names), mean.weight, seconds
        )
        key = next(iter(first.content.array_records))
        content = RecordDict(
            {key: arrays, "metrics": MetricRecord({settings.plan.weighted_by: mean.weight, **metrics})}
        )
        return Message(content, reply_to=first)

    def _task(self, first: Message, plan: bytes, dim: int, round_: int, attempt: int) -> Task:
        settings = self._settings
        model, config = content_hashes(first.content, plan)
        return Task(
            scheme=settings.scheme,
            round=round_,
            attempt=attempt,
            cohort=len(self._public.roster),
            dim=dim,
            bits=settings.bits,
            clip=float(settings.clip),
            max_weight=settings.max_weight,
            threshold=settings.threshold or 0,
            model_hash=model,
            config_hash=config,
        )


class _Exchange:
    """The messages of one attempt, and which node speaks for which member."""

    def __init__(self, grid: Grid, first: Message, task: Task, public: Public, desk: RoundDesk) -> None:
        self._grid, self._first, self._task, self._public, self._desk = grid, first, task, public, desk
        self._member: dict[int, int] = {}  # node -> roster index, as proven in this attempt
        self._node: dict[int, int] = {}

    def invite(self, nodes: Sequence[int], plan: bytes, train: float | None, other: float) -> None:
        """The first exchange: everyone is told the task, and proves for whom it speaks."""
        record: dict[str, Any] = {"task": self._task.encode()}
        self._run({node: dict(record) for node in nodes}, plan, train, other)

    def next(self, plan: bytes, train: float | None, other: float) -> None:
        frames: dict[int, list[bytes]] = {}
        for index, data in self._desk.outgoing():
            frames.setdefault(self._node[index], []).append(data)
        self._run({node: {"frames": found} for node, found in frames.items()}, plan, train, other)

    def _run(
        self, records: Mapping[int, dict[str, Any]], plan: bytes, train: float | None, other: float
    ) -> None:
        due = self._desk.phase.value == self._task.vector_phase
        messages = []
        for node, record in records.items():
            content = RecordDict({RECORD: ConfigRecord({**record, "plan": plan} if due else record)})
            if due:
                for name, value in self._first.content.items():
                    content[name] = value
            kind = self._first.metadata.message_type
            messages.append(Message(content, node, kind, group_id=self._first.metadata.group_id))
        for reply in ask(self._grid, messages, train if due else other):
            self._take(reply)
        self._desk.close()

    def _take(self, reply: Message) -> None:
        node = reply.metadata.src_node_id
        if reply.has_error():
            if node in self._member:
                self._desk.notes.reports[self._member[node]] = f"the engine reports error {reply.error.code}"
            return
        record = reply.content.config_records.get(RECORD)
        if record is None:
            return
        index = self._member.get(node) or self._bind(node, reply, record)
        if not index:
            return
        if "code" in record:
            self._desk.notes.reports[index] = f"{record['code']}: {record.get('why', '')}"[:300]
        frames: Any = record.get("frames", [])
        if isinstance(frames, list):
            self._desk.take(index, [f for f in frames if isinstance(f, bytes)])

    def _bind(self, node: int, reply: Message, record: ConfigRecord) -> int:
        """The roster index that a node proves to speak for; 0 where it proves nothing or comes second."""
        index, proof = record.get("index"), record.get("proof")
        roster = self._public.roster
        if type(index) is not int or not isinstance(proof, bytes) or not 1 <= index <= len(roster):
            _log.warning("node %d names no member: %s", node, record.get("why", ""))
            return 0
        fields = node_fields(self._task, self._public, reply.metadata.run_id, node)
        if not verify(roster.member(index).sign_key, proof, NODE_PURPOSE, *fields):
            _log.warning("node %d does not prove to be %r", node, roster.member(index).name)
            return 0
        if index in self._node:
            _log.warning("a second node for member %r is left out", roster.member(index).name)
            return 0
        self._member[node], self._node[index] = index, node
        return index


def _is_train(message: Message) -> bool:
    return message.metadata.message_type.split(".")[0] == "train"


def _report(
    round_: int,
    attempt: int,
    survivors: tuple[str, ...],
    weight: int,
    seconds: float,
    notes: Notes,
    code: AbortCode | None,
    why: str,
) -> Report:
    return Report(
        round_,
        attempt,
        survivors,
        weight,
        seconds,
        sum(notes.uplink.values()),
        sum(notes.downlink.values()),
        tuple(notes.refused),
        dict(notes.reports),
        code,
        why,
    )
