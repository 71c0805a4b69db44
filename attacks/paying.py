"""The field of A30-site: a site's own code and disk, and a server that names the noise and owns all others.

Guarantees: the site is `fl.deploy.site.Site` with a folder, a policy and a ledger of its own; only the socket
is left out. The adversary sees what its server would: whether a vector came, and a refusal's code. What lies
on the site's disk, and what its vectors carry, goes to the scorer alone. A task counts as answered once the
frames of its vector have left the site. Assumes: policy figures, roster and network are drawn from a seed;
keys, masks and noise come from the operating system.
"""

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from merveil.attacks.population import population
from merveil.attacks.protocol import people
from merveil.fl import coins, dp
from merveil.fl.deploy import private
from merveil.fl.deploy.channel import Kind, Message, pack_list
from merveil.fl.deploy.config import DataShape, SiteSettings
from merveil.fl.deploy.desk import RoundDesk
from merveil.fl.deploy.member import LEDGER, Member
from merveil.fl.deploy.site import Site
from merveil.fl.deploy.step import Step
from merveil.fl.deploy.task import Task
from merveil.fl.deploy.work import Trainer, Work, pack_model
from merveil.fl.dp_ledger import Budget
from merveil.fl.driver import federated_net
from merveil.fl.ledger import FileStore
from merveil.fl.options import TrainOptions, resolve
from merveil.fl.runs import RunLog
from merveil.protocols.api import client_session
from merveil.protocols.dp.discrete import Mechanism
from merveil.protocols.ledger import Ledger
from merveil.protocols.policy import SECURE_SCHEMES, Policy
from merveil.protocols.registry import get

LEAST, MOST = 5, 9  # members of a roster
PAYS = (3, 6)  # uploads that a budget pays: from, and below
MEMORY = "/dev/shm"  # a play syncs some hundred small files: in memory where the system has such a folder
DRAWN = 60  # people of whom one's clips are the site's


@dataclass(frozen=True)
class Answer:
    """What a server sees of a site after a task: a vector, or a code and whether it names the budget."""

    vector: bool
    code: str = ""
    spent: bool = False


@dataclass(frozen=True)
class Watched(Member):
    """A member. seen: how many uploads were paid on its disk whenever a session of it was opened."""

    seen: list[int] = field(default_factory=list, repr=False)

    @contextmanager
    def ledger(self) -> Iterator[Ledger]:
        self.seen.append(uploads(self.home))
        with super().ledger() as found:
            yield found


def uploads(home: Path) -> int:
    """Charges in the file of a site's folder; none where there is no file."""
    path = home / private.LEDGER
    if not path.exists():
        return 0
    return sum(int(row["count"]) for row in json.loads(path.read_bytes())["charges"])


class PayField:
    """One site in one training of `pays` rounds, which its budget pays for and no more; a context manager."""

    def __init__(self, site: Callable[..., Site], scheme: str, seed: int, number: int) -> None:
        """site: makes the site, as `Site`. number: of the play; seed: of what is drawn."""
        rng = np.random.default_rng([seed, number, 93])
        self._rng, self._scheme = rng, scheme
        self.members = int(rng.integers(LEAST, MOST + 1))
        self.pays = int(rng.integers(*PAYS))
        self._identities, self._roster = people(self.members)
        self._who = 1 + int(rng.integers(self.members))
        self._options = self._drawn()
        o, shape = self._options, DataShape()
        net = federated_net(o, shape.shape, len(shape.classes))
        self._mechanism = dp.mechanism_for(o, net.size, self.members, Budget(None, "", o.epsilon, o.delta))
        start = net.init(coins.derive(o.seed, "init", "")).astype(np.float64)
        self._work = Work("train", 0, o, shape, pack_model(start, np.ones(len(shape.classes))))
        place = MEMORY if os.access(MEMORY, os.W_OK) else None
        self._folder = TemporaryDirectory(prefix="merveil-site-", dir=place)
        self._member = self._made(Path(self._folder.name))
        archive = population(DRAWN)
        person = archive.persons()[int(rng.integers(DRAWN))]
        trainer = Trainer(archive.select(archive.person == person), self._member.identity.name)
        settings = SiteSettings(home=self._member.home)
        self._site = site(self._member, settings, trainer, RunLog(verbosity=-1))
        self._ledgers = {i: Ledger() for i in range(1, self.members + 1)}
        self._round, self._before, self._noise = 0, [], []  # type: ignore[var-annotated]

    def __enter__(self) -> "PayField":
        return self

    def __exit__(self, *error: object) -> None:
        self._folder.cleanup()

    def _drawn(self) -> TrainOptions:
        rng = self._rng
        return resolve(
            {
                "scheme": self._scheme,
                "model": "flow-mlp",
                "model_options": {"hidden": int(rng.integers(1, 5))},
                "strategy": "fedavg",
                "dp": "distributed",
                "dp_noise": str(rng.choice(["skellam", "gaussian"])),
                "epsilon": float(np.exp(rng.uniform(0, math.log(16)))),
                "delta": 1 / self.members / float(np.exp(rng.uniform(math.log(3), math.log(3000)))),
                "norm_clip": float(np.exp(rng.uniform(-2, 2))),
                "rounds": self.pays,
                "seed": int(rng.integers(2**31)),
            }
        )

    def _made(self, home: Path) -> Watched:
        """The site's folder and policy, whose figures are those of the training."""
        with FileStore(home / LEDGER, create=True) as store:
            Ledger(store)
        o = self._options
        figures = {"dp_epsilon": o.epsilon, "dp_delta": o.delta, "dp_norm_clip": o.norm_clip}
        policy = replace(self._floor(), **figures)
        return Watched(home, self._identities[self._who - 1], self._roster, policy, self._who)

    def _floor(self) -> Policy:
        return Policy(self._roster.anchor, frozenset({self._scheme}) | SECURE_SCHEMES)

    # Tasks

    def honest(self, finish: bool = True) -> Answer:
        """The site's answer to the next honest round. finish: to its sum; else the attempt ends with the
        vector."""
        self._round += 1
        return self._ask(self._task(self._mechanism), self._work, finish)

    def offer(self, kind: str) -> Answer:
        """The site's answer to a task of a kind of A30-site, in a round of its own (`retry`: the last)."""
        if kind == "retry":
            return self._ask(self._task(self._mechanism, attempt=2), self._work)
        self._round += 1
        return self._ask(*self._bent(kind))

    def _bent(self, kind: str) -> tuple[Task, Work]:
        m, o, more = self._mechanism, self._options, float(self._rng.uniform(1.01, 2))
        if kind in ("counts", "none"):
            clear = resolve({**_without_dp(o), "max_weight": 1, "class_weights": kind == "counts"})
            counts = kind == "counts"
            work = replace(self._work, options=clear, payload=b"" if counts else self._work.payload)
            work = replace(work, kind="counts" if counts else "train")
            return self._clear(work, m.dim if not counts else len(work.data.classes)), work
        if kind == "hash":
            announced, other = self._task(m), replace(m, variance=m.variance + Fraction(1, 16))
            return replace(announced, mechanism=private.encode(other)), self._work
        changes: dict[str, dict[str, Any]] = {
            "honest": {"honest": m.honest + 1},
            "central": {"central": True, "honest": 1, "variance": m.honest * m.variance},
            "cohort": {"cohort": self.members + int(self._rng.choice([-1, 1, 2]))},
            "clip": {"norm_clip": more * m.norm_clip},
            "delta": {},
            "half": {"variance": m.variance / 2},
            "more": {},
        }
        options = {"clip": {"norm_clip": more * o.norm_clip}, "delta": {"delta": more * o.delta}}
        work = replace(self._work, options=replace(o, **options.get(kind, {})))
        return self._task(replace(m, **changes[kind]), work), work

    def _task(self, mechanism: Mechanism, work: Work | None = None, attempt: int = 1) -> Task:
        """As an honest server makes it of a mechanism."""
        text = private.encode(mechanism)
        hashes = (work or self._work).hashes(text)
        grid = (mechanism.size, mechanism.bits, mechanism.clip, 1, 0)
        return Task(self._scheme, self._round, attempt, self.members, *grid, *hashes, text)

    def _clear(self, work: Work, dim: int) -> Task:
        return Task(self._scheme, self._round, 1, self.members, dim, 16, 64.0, 1, 0, *work.hashes())

    # A round

    def _ask(self, task: Task, work: Work, finish: bool = False) -> Answer:
        """Play a round until the site refuses or its vector is there; with `finish`, to the sum."""
        head = {"task": task.encode().decode(), "tag": "", "work": work.head()}
        done = self._site._invited(Message(Kind.TASK, head, work.payload))
        if not done.frames:
            return _refusal(done)
        desk, others = RoundDesk(task, self._roster), self._others(task)
        sent = {i: [f.encode() for f in [*s.start(), *s.submit(_zeros(task))]] for i, s in others.items()}
        vector = False
        for number, phase in enumerate(get(task.scheme).phases):
            if phase.value == task.vector_phase:
                vector = True
                self._before.append(self._member.seen[-1])
                if not finish:
                    break
            desk.take(self._who, done.frames)
            for i, frames in sent.items():
                desk.take(i, frames)
            desk.close()
            if desk.done:
                break
            down = _by_member(desk)
            heard = {**head, "exchange": number + 1}
            done = self._site._heard(Message(Kind.FRAMES, heard, pack_list(down.pop(self._who, []))))
            if done.code is not None:
                return Answer(vector, done.code.name, done.spent)
            sent = {i: [f.encode() for d in down[i] for f in s.receive(0, d)] for i, s in others.items()}
        if finish:
            codes = desk.result().codes  # of the site alone: the others' vectors are zero
            square = float(np.mean(np.square(codes.astype(np.float64))))
            self._noise.append((square / float(self._mechanism.variance), len(codes)))
        return Answer(vector)

    def _others(self, task: Task) -> dict[int, Any]:
        """Sessions of the members that the server owns; their policies ask for no noise."""
        own = {"policy": self._floor(), "roster": self._roster, **task.settings()}
        return {
            i: client_session(task.scheme, identity=who, ledger=self._ledgers[i], **own)
            for i, who in enumerate(self._identities, 1)
            if i != self._who
        }

    def scorer(self) -> dict[str, Any]:
        """For the scorer: uploads on disk, those on it before each vector's session was opened, and of each
        vector that could be read its mean square over the named variance, and its length."""
        return {"uploads": uploads(self._member.home), "before": self._before, "noise": self._noise}


def _without_dp(options: TrainOptions) -> dict[str, Any]:
    away = ("dp", "dp_noise", "epsilon", "delta", "norm_clip")
    return {name: value for name, value in options.as_dict().items() if name not in away}


def _refusal(done: Step) -> Answer:
    return Answer(False, done.code.name if done.code else "LOCAL", done.spent)


def _zeros(task: Task) -> Any:
    return np.zeros(task.params().size, dtype=np.int64)


def _by_member(desk: RoundDesk) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = {i: [] for i in range(1, len(desk.roster) + 1)}
    for index, data in desk.outgoing():
        found[index].append(data)
    return found
