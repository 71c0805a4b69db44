"""Whole trainings to attack: people in or out by a coin, many rounds of real aggregations, and references.

A training is the federation's default mode: each round every client sends one full-batch gradient and all
apply Adam to the published mean (`fl.strategy`, fedadam), so it takes central training's steps and fits its
people to the last clip. The references of an attacker are trained the same way on known halves of the same
people, as one stack. Guarantees: whole persons are in or out (never LOSO folds, which leave too few out);
each clip beyond a person's own ones is seen by no model; the target is in no reference.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from merveil.attacks.base import MEMBER, Public
from merveil.attacks.population import population
from merveil.fl.aggregator import SecureAggregator
from merveil.mer.errors import InputError

if TYPE_CHECKING:
    from merveil.mer.data.archive import Archive
    from merveil.mer.models.stacked import StackedNet

Index = NDArray[np.int64]
Bools = NDArray[np.bool_]
LEAST_PEOPLE = 40  # with fewer an archive says nothing about membership of people


@dataclass(frozen=True)
class Course:
    """How people train together. own, fresh: clips of a person that train, and that no model sees.

    cohort clients of several persons each; rounds of one gradient; rate of Adam at the server.
    references: models that the attacker trains. targets: trainings that are attacked.
    """

    people: int = 60
    outside: int = 8
    own: int = 8
    fresh: int = 4
    cohort: int = 6
    rounds: int = 60
    rate: float = 0.03
    references: int = 64
    targets: int = 2
    model: str = "flow-mlp"
    hidden: int = 16
    clip: float = 16.0
    bits: int = 24


@dataclass(frozen=True, eq=False)
class Candidates:
    """The people of a course. records: archive rows of own clips [m], person of each; fresh likewise."""

    archive: "Archive" = field(repr=False)
    records: Index
    persons: Index
    fresh: Index
    fresh_persons: Index
    outside: Index
    drawn: bool  # whether the people are `population`, since the archive has too few


@dataclass(frozen=True, eq=False)
class References:
    """What the attacker made himself: models [M,P] and which person each had [M, people]."""

    models: NDArray[np.float32] = field(repr=False)
    inside: Bools
    records: Index  # person of each challenge record
    fresh_x: NDArray[Any] = field(repr=False)
    fresh_y: Index
    fresh: Index  # person of each fresh clip


@dataclass(frozen=True, eq=False)
class TrainingTruth:
    """For the scorer: who took part (the adversary's own people, whom it knows, are in `known`)."""

    inside: Bools
    known: Bools
    records: Index
    fresh: Index
    x: NDArray[Any] = field(repr=False)
    fitted: float  # accuracy of the final model on its own clips
    others: float  # and on the clips of people who took no part
    drawn: bool


@dataclass(frozen=True, eq=False)
class TrainingCase:
    """views: one a round, cut for the adversary."""

    view: tuple[Any, ...]
    public: Public
    truth: TrainingTruth


def candidates(archive: "Archive", course: Course) -> Candidates:
    """People with clips for training and fresh ones; drawn people where the archive has fewer than 40."""
    drawn = len(archive.persons()) < LEAST_PEOPLE
    if drawn:
        archive = population(course.people + course.outside, course.own + course.fresh, 0)
    names = np.array(archive.persons())
    names = np.random.default_rng([17, len(names)]).permutation(names)
    inside, outside = names[: -course.outside], names[-course.outside :]
    own, fresh = [], []
    for i, name in enumerate(inside):
        rows = np.flatnonzero(archive.person == name)
        kept = max(1, round(len(rows) * course.own / (course.own + course.fresh)))
        own.append(np.stack([rows[:kept], np.full(kept, i)]))
        fresh.append(np.stack([rows[kept:], np.full(len(rows) - kept, i)]))
    a, b = np.concatenate(own, 1), np.concatenate(fresh, 1)
    elsewhere = np.flatnonzero(np.isin(archive.person, outside))
    return Candidates(archive, a[0], a[1], b[0], b[1], elsewhere, drawn)


def halves(count: int, people: int, rng: np.random.Generator) -> Bools:
    """[count, people]: half of the people in each."""
    found = np.zeros((count, people), bool)
    for row in found:
        row[rng.permutation(people)[: people // 2]] = True
    return found


def _net(found: Candidates, course: Course) -> "StackedNet":
    from merveil.mer.models.stacked import build

    h, w, c = found.archive.x.shape[1:]
    options: dict[str, Any] = {"hidden": course.hidden} if course.model == "flow-mlp" else {}
    return build(course.model, c, h, w, len(found.archive.classes), **options)


def _weights(found: Candidates) -> NDArray[np.float64]:
    y = found.archive.y[found.records]
    counts = np.maximum(np.bincount(y, minlength=len(found.archive.classes)), 1)
    return np.asarray(len(y) / (len(counts) * counts))


def _padded(groups: Sequence[Index]) -> Index:
    width = max(len(g) for g in groups)
    return np.stack([np.pad(g, (0, width - len(g)), constant_values=-1) for g in groups])


class _Trainer:
    """Gradients of many groups of records at once, without dropout."""

    def __init__(self, found: Candidates, course: Course) -> None:
        import torch

        from merveil.mer.train import set_threads

        set_threads(1)
        self.torch, self.net = torch, _net(found, course)
        self.x = torch.from_numpy(self.net.prepare(found.archive.x))
        self.y, self.weight = found.archive.y, _weights(found)

    def rows(self, groups: Sequence[Index]) -> tuple[Index, Any]:
        """Padded rows [M,B] and the weights of -log p [M,B,K] that make the weighted mean loss."""
        rows = _padded(groups)
        real = rows >= 0
        mass = self.weight[self.y[np.maximum(rows, 0)]] * real
        share = mass / mass.sum(1, keepdims=True)
        targets = np.eye(len(self.weight))[self.y[np.maximum(rows, 0)]] * share[..., None]
        return rows, self.torch.from_numpy(targets.astype(np.float32))

    def gradients(self, models: Any, rows: Index, targets: Any) -> Any:
        return self.net.gradients(models, self.x, rows, targets, None).value

    def accuracy(self, model: NDArray[np.float32], rows: Index) -> float:
        with self.torch.no_grad():
            logits = self.net.logits(self.torch.from_numpy(model[None]), self.x[rows], train=True)[0]
        return float((logits.argmax(-1).numpy() == self.y[rows]).mean())


def references(found: Candidates, course: Course, seed: int) -> References:
    """Models on random halves of the people, trained as one stack; the attacker knows its own halves."""
    from merveil.mer.optim import OptimiserState

    trainer, people = _Trainer(found, course), int(found.persons.max()) + 1
    inside = halves(course.references, people, np.random.default_rng([seed, 31]))
    rows, targets = trainer.rows([found.records[chosen[found.persons]] for chosen in inside])
    models = trainer.torch.from_numpy(
        np.stack([trainer.net.init(10_000 * (seed + 1) + i) for i in range(len(inside))])
    )
    state = OptimiserState.fresh("adam", len(inside), trainer.net.size)
    rates = np.full(len(inside), course.rate)
    for _ in range(course.rounds):
        state.step(models, trainer.gradients(models, rows, targets), rates, 0.0)
    archive = found.archive
    return References(
        models.numpy(),
        inside,
        found.persons,
        archive.x[found.fresh],
        archive.y[found.fresh],
        found.fresh_persons,
    )


def record_course(
    found: Candidates, course: Course, scheme: str, made: References, seed: int
) -> TrainingCase:
    """One training through a scheme's real frames; the adversary is client 1."""
    from merveil.attacks.replay import AdamServer

    trainer, people = _Trainer(found, course), int(found.persons.max()) + 1
    rng = np.random.default_rng([seed, 32])
    inside = halves(1, people, rng)[0]
    chosen = rng.permutation(np.flatnonzero(inside))
    if len(chosen) < 2 * course.cohort:
        raise InputError(f"{len(chosen)} people in {course.cohort} clients: a client holds at least two")
    groups = np.array_split(chosen, course.cohort)
    rows, targets = trainer.rows([found.records[np.isin(found.persons, g)] for g in groups])
    start = trainer.net.init(777 + seed)
    sums = SecureAggregator(scheme, clip=course.clip, bits=course.bits, max_cut=1.0, record=True)
    server, views = AdamServer(start, course.rate), []
    for _ in range(course.rounds):
        models = trainer.torch.from_numpy(np.tile(server.model, (course.cohort, 1)))
        gradients = trainer.gradients(models, rows, targets).numpy()
        mean = sums.mean([g.astype(np.float64) for g in gradients])
        views.append(mean.transcript.view(MEMBER.corrupted))
        server.step(mean.value)
    known = np.zeros(people, bool)
    known[groups[0]] = True
    inner = inside[found.persons]
    truth = TrainingTruth(
        inside, known, found.persons, found.fresh_persons, found.archive.x[found.records],
        trainer.accuracy(server.model, found.records[inner]),
        trainer.accuracy(server.model, found.records[~inner]),
        found.drawn,
    )  # fmt: skip
    return TrainingCase(tuple(views), _public(found, course, scheme, start, made, trainer), truth)


def _public(
    found: Candidates, course: Course, scheme: str, start: Any, made: References, trainer: _Trainer
) -> Public:
    archive = found.archive
    h, w, c = archive.x.shape[1:]
    return Public(
        scheme=scheme,
        model=course.model,
        shape=(h, w, c),
        classes=archive.classes,
        start=start,
        lr=course.rate,
        steps=1,
        clip=course.clip,
        bits=course.bits,
        max_weight=1,
        cohort=course.cohort,
        clips=course.own,
        class_weight=trainer.weight,
        proxy_x=archive.x[found.outside],
        proxy_y=archive.y[found.outside],
        challenge_x=archive.x[found.records],
        challenge_y=archive.y[found.records],
        options={"hidden": course.hidden} if course.model == "flow-mlp" else {},
        references=made,
    )


@lru_cache(maxsize=4)
def prepared(archive: "Archive", course: Course, seed: int) -> tuple[Candidates, References]:
    """The people and the attacker's references, made once for all schemes and attacks."""
    found = candidates(archive, course)
    return found, references(found, course, seed)


@lru_cache(maxsize=16)
def courses(archive: "Archive", course: Course, scheme: str, seed: int) -> tuple[TrainingCase, ...]:
    """The targets of a course under a scheme; cached, since several attacks read the same trainings."""
    found, made = prepared(archive, course, 5)
    return tuple(record_course(found, course, scheme, made, 100 * seed + i) for i in range(course.targets))
