"""Folders of a federation on disk, and an engine in one process that loses, repeats and bends messages."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from merveil.fl.federation import PUBLIC, ROSTER, Folder
from merveil.fl.files import write_bytes
from merveil.fl.keys import save_identity
from merveil.fl.ledger import FileStore
from merveil.protocols.identity import Identity
from merveil.protocols.ledger import Ledger

pytest.importorskip("flwr", reason="flwr is not installed: pip install 'merveil[flower]'")

from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.common.serde import (
    message_from_proto,
    message_to_proto,
    recorddict_from_proto,
    recorddict_to_proto,
)
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecords
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from merveil.fl.flower import SecureMod

RUN = 7
Fault = Callable[[int, Message], Message | None]


@dataclass
class Homes:
    """server: the server's folder. members: one folder a member, in roster order."""

    server: Path
    members: list[Path]


def make_homes(root: Path, count: int) -> Homes:
    """A coordinator, `count` members and a server, each with the files it would have."""
    folder = Folder.init(root / "hq", None)
    coordinator = folder.coordinator(None)
    homes = []
    for i in range(1, count + 1):
        home = root / f"site-{i}"
        home.mkdir()
        identity = Identity.generate(f"site-{i}")
        save_identity(home / "identity.key", identity)
        request = home / "request.bin"
        write_bytes(request, identity.request(folder.invitation.federation, folder.invitation.agree))
        with FileStore(home / "ledger", create=True) as store:
            Ledger(store)
        folder.add(coordinator, request)
        homes.append(home)
    roster = folder.sign(coordinator, days=30, max_rounds=1000)
    server = root / "server"
    server.mkdir()
    for home in [server, *homes]:
        write_bytes(home / PUBLIC, folder.invitation.encode())
        write_bytes(home / ROSTER, roster.data)
    return Homes(server, homes)


@pytest.fixture
def homes(tmp_path: Path) -> Homes:
    return make_homes(tmp_path, 5)


@pytest.fixture
def many_homes(tmp_path: Path) -> Callable[[int], Homes]:
    return lambda count: make_homes(tmp_path, count)


MODEL = {"layer.weight": np.zeros((4, 3), np.float32), "layer.bias": np.zeros(3, np.float32)}


def plain_app(mods: list[Any] | None = None) -> ClientApp:
    """An app as its users write it: adds its own number to every weight, weighs by its number."""
    app = ClientApp(mods=mods)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        own = int(context.node_config["number"])
        arrays = message.content["arrays"]
        found = {name: Array(arrays[name].numpy() + np.float32(own / 100)) for name in arrays}
        metrics = MetricRecord({"num-examples": own, "train_loss": own / 10, "secret": 42.0})
        content = RecordDict({"arrays": ArrayRecord(found), "metrics": metrics})
        return Message(content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        own = int(context.node_config["number"])
        content: dict[str, Any] = {"metrics": MetricRecord({"num-examples": own, "loss": 1.0})}
        if message.content.config_records.get("config", {}).get("leak"):
            content["arrays"] = message.content["arrays"]
        return Message(RecordDict(content), reply_to=message)

    return app


def _wired(message: Message) -> Message:
    """A message after the wire: Flower's own encoding, there and back."""
    return message_from_proto(ProtoMessage.FromString(message_to_proto(message).SerializeToString()))


def _stored(state: RecordDict) -> RecordDict:
    return recorddict_from_proto(ProtoRecords.FromString(recorddict_to_proto(state).SerializeToString()))


@dataclass
class FakeGrid(Grid):
    """Nodes 101, 102, ... each with its own context. up, down: what happens to a message on its way.

    A fault takes (exchange, message) and gives the message that arrives, or None. exchange counts calls of
    send_and_receive from 1.
    """

    app: ClientApp
    contexts: dict[int, Context]
    up: Fault = lambda exchange, message: message
    down: Fault = lambda exchange, message: message
    arrange: Callable[[int, list[Message]], list[Message]] = lambda exchange, replies: replies
    exchange: int = 0
    current: Any = None
    seen: list[Message] = field(default_factory=list)
    sent: list[Message] = field(default_factory=list)
    ready: list[Message] = field(default_factory=list)

    def sent_to(self, node: int, exchange: int) -> Message:
        """The message of an exchange (from 1) to a node, once more."""
        return [m for m in self.sent if m.metadata.dst_node_id == node][exchange - 1]

    def set_run(self, run: Any) -> None:
        self.current = run

    @property
    def run(self) -> Any:
        return self.current

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        found = list(messages)
        for number, message in enumerate(found):
            message.metadata.__dict__["_message_id"] = f"{self.exchange + 1}.{number}"
        self.ready = list(self.send_and_receive(found))
        return [m.metadata.message_id for m in found]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        found, self.ready = self.ready, []
        return found

    def get_node_ids(self) -> Iterable[int]:
        return list(self.contexts)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        self.exchange += 1
        replies = []
        for sent in messages:
            self.sent.append(_wired(sent))
            message = self.down(self.exchange, _wired(sent))
            if message is None:
                continue
            node = sent.metadata.dst_node_id
            TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN, node, 1
            context = self.contexts[node]
            context.state = _stored(context.state)  # the engine stores and loads it
            try:
                reply = self.app(message, context)
            except ValueError as error:  # the engine answers for an app that raised
                reply = Message(Error(1, str(error)), reply_to=message)
            arrived = self.up(self.exchange, _wired(reply))
            if arrived is not None:
                self.seen.append(arrived)
                replies.append(arrived)
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN, 0, 1
        return self.arrange(self.exchange, replies)


def make_grid(homes: Homes | None, app: ClientApp | None = None, count: int = 5, **faults: Any) -> FakeGrid:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN, 0, 1
    places = [str(h) for h in homes.members] if homes else [""] * count
    contexts = {
        100 + i: Context(RUN, 100 + i, {"merveil-home": place, "number": i}, RecordDict(), {})
        for i, place in enumerate(places, 1)
    }
    return FakeGrid(app or plain_app([SecureMod()] if homes else None), contexts, **faults)


def train_messages(grid: FakeGrid, config: Mapping[str, Any] | None = None) -> list[Message]:
    record = RecordDict(
        {
            "arrays": ArrayRecord({n: Array(a) for n, a in MODEL.items()}),
            "config": ConfigRecord({"lr": 0.1, **(config or {})}),
        }
    )
    return [Message(record, node, "train") for node in grid.get_node_ids()]


def weighted_mean(numbers: Iterable[int]) -> float:
    """What the app's updates average to: number / 100, weighted by number."""
    found = list(numbers)
    return sum(n * n for n in found) / sum(found) / 100


class FakeTime:
    """Sleeping moves the clock and takes no time; a wait without end is an error."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.now > 1e5:
            raise AssertionError("the server would wait for ever")


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    """What the server's waiting reads: a lost message would otherwise cost each test its timeout."""
    found = FakeTime()
    monkeypatch.setattr("merveil.fl.flower.polling.time", found)
    return found


@pytest.fixture
def tools() -> Any:
    """The helpers above, for tests: pytest loads this file by itself, so nobody imports it."""

    class Tools:
        pass

    for name in ("FakeGrid", "Homes", "make_grid", "train_messages", "weighted_mean", "plain_app", "MODEL"):
        setattr(Tools, name, staticmethod(globals()[name]) if callable(globals()[name]) else globals()[name])
    Tools.array = Array
    return Tools
