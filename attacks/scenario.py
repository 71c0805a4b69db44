"""Rounds to attack: clients with few clips, one real aggregation recorded, view and truth kept apart.

Guarantees: client updates are made by the network's own training gradient, every round goes through
`SecureAggregator` with its real frames, and what an attack gets is the view of its declared coalition.
Dropout is off and the local batch is full, so that a failed attack is not luck.
Persons are split once: those outside the federation are the attacker's public data.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from merveil.attacks.base import Adversary, Public
from merveil.attacks.population import population
from merveil.fl.aggregator import SecureAggregator
from merveil.fl.dp import PrivateAggregator
from merveil.mer.errors import InputError

if TYPE_CHECKING:
    from merveil.mer.data.archive import Archive

Index = NDArray[np.int64]


@dataclass(frozen=True)
class Setting:
    """How many clips a client holds, how many clients there are, and how many rounds are recorded.

    by_person: a client holds that many clips of one person of its own, and the challenge are other clips of
    these people. colluders: clients 1..n that pool what they know with the server; they are not scored.
    crafted: the server sends a start model of its own making, "bins" or "trap" (`attacks.probe.crafted`), or
    "seer" (`attacks.seer`, on `flow-mlp`).
    model, options, clip, bits, lr: instead of the task's, where an attack is about one kind of network.
    people: drawn people (`attacks.population`) take the place of an archive that has fewer.
    sums: clients send the first 2 or all 3 sums of `exact-ridge` in place of a network's update
    (`attacks.sums`); steps, model and what belongs to it then mean nothing.
    """

    clips: int
    cohort: int
    rounds: int
    steps: int = 1
    weighted: bool = False
    by_person: bool = False
    colluders: int = 0
    model: str = ""
    options: tuple[tuple[str, Any], ...] = ()
    clip: float = 0.0
    bits: int = 0
    lr: float = 0.0
    people: int = 0
    crafted: str = ""
    sums: int = 0

    def on(self, task: "Task") -> "Task":
        """The task with what this setting fixes."""
        options = dict(self.options) if self.model else task.options
        archive = task.archive
        if len(archive.persons()) < self.people:
            archive = population(self.people)
        return replace(
            task,
            archive=archive,
            model=self.model or task.model,
            options=options,
            clip=self.clip or task.clip,
            bits=self.bits or task.bits,
            lr=self.lr or task.lr,
        )


@dataclass(frozen=True)
class Task:
    """The recognition task a federation works on; lr and clip as the federated defaults have them.

    private: makes the aggregator of a run with differential privacy, from the update's length and the cohort.
    """

    archive: "Archive" = field(repr=False)
    model: str = "ststnet"
    options: dict[str, Any] = field(default_factory=dict)
    lr: float = 1.0
    clip: float = 8.0
    bits: int = 16
    private: Callable[[int, int], PrivateAggregator] | None = None


@dataclass(frozen=True, eq=False)
class Truth:
    """What only the scorer knows. held: client -> archive rows; counts: client -> class counts [K].

    members: bool [m], which challenge records took part; groups: person of each challenge record.
    """

    archive: "Archive" = field(repr=False)
    held: dict[int, Index]
    counts: dict[int, NDArray[np.int64]]
    members: NDArray[np.bool_]
    owners: NDArray[np.int64]  # client that held a challenge record, 0 for none
    challenge: Index
    weights: dict[int, int]


@dataclass(frozen=True, eq=False)
class Case:
    """One recorded round: what the adversary sees, what everyone knows, and the truth for the scorer."""

    view: Any
    public: Public
    truth: Truth


def outside_persons(archive: "Archive", share: float = 0.3, seed: int = 0) -> NDArray[np.bool_]:
    """Which clips belong to people outside the federation: whole persons, drawn by seed, bool [n]."""
    persons = np.array(archive.persons())
    count = max(1, round(share * len(persons)))
    if len(persons) < 3:
        raise InputError(f"attacks need clips of at least 3 persons, the archive has {len(persons)}")
    chosen = np.random.default_rng([seed, 7]).permutation(persons)[:count]
    return np.asarray(np.isin(archive.person, chosen))


def largest_cohort(archive: "Archive", clips: int, by_person: bool = False) -> int:
    """Most clients of that many clips that leave as many inside clips again as non-members.

    by_person: people inside with as many clips again that take no part.
    """
    inside = ~outside_persons(archive)
    if by_person:
        return len(_able(archive, inside, clips))
    return int(inside.sum()) // (2 * clips)


def _able(archive: "Archive", inside: NDArray[np.bool_], clips: int) -> NDArray[Any]:
    """People with clips enough to take part with some and be asked about with others."""
    names, counts = np.unique(archive.person[inside], return_counts=True)
    return names[counts >= 2 * clips]


def record(task: Task, scheme: str, setting: Setting, adversary: Adversary, seed: int) -> list[Case]:
    """Record the setting's rounds under a scheme; InputError where the archive is too small for it."""
    task = setting.on(task)
    check_room(task.archive, setting)
    outside = outside_persons(task.archive)
    return [_round(task, scheme, setting, adversary, outside, seed, r) for r in range(setting.rounds)]


def check_room(archive: "Archive", setting: Setting) -> None:
    """InputError where the archive has no room for the setting's clients."""
    room = largest_cohort(archive, setting.clips, setting.by_person)
    if setting.cohort > room:
        raise InputError(
            f"{setting.cohort} clients of {setting.clips} clips: this archive has room for {room} of them"
        )


def deal(
    archive: "Archive", setting: Setting, outside: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[dict[int, Index], Index, Index]:
    """Who holds which rows, the challenge rows, and the client that each of these belongs to (0: none)."""
    if setting.by_person:
        people = rng.permutation(_able(archive, ~outside, setting.clips))[: setting.cohort]
        rows = [rng.permutation(np.flatnonzero(archive.person == p))[: 2 * setting.clips] for p in people]
        held = {i: np.sort(r[: setting.clips]) for i, r in enumerate(rows, 1)}
        challenge = np.concatenate([r[setting.clips :] for r in rows])
        return held, challenge, np.repeat(np.arange(setting.cohort) + 1, setting.clips)
    inside, taken = rng.permutation(np.flatnonzero(~outside)), setting.cohort * setting.clips
    held = {i + 1: np.sort(rows) for i, rows in enumerate(inside[:taken].reshape(setting.cohort, -1))}
    owners = np.concatenate([np.repeat(np.arange(setting.cohort) + 1, setting.clips), np.zeros(taken)])
    return held, inside[: 2 * taken], owners.astype(np.int64)


def _round(
    task: Task,
    scheme: str,
    setting: Setting,
    adversary: Adversary,
    outside: NDArray[np.bool_],
    seed: int,
    number: int,
) -> Case:
    """Draw who holds what, train one step, aggregate for real, and cut the view."""
    rng = np.random.default_rng([seed, number])
    held, challenge, owners = deal(task.archive, setting, outside, rng)
    pooled = range(1, setting.colluders + 1)
    asked = ~np.isin(owners, pooled)
    public = _public(task, scheme, setting, outside, challenge[asked], seed, number)
    updates = client_updates(task, public, list(held.values()))
    sizes = [setting.clips] * setting.cohort
    if setting.weighted:
        sizes = [int(v) for v in rng.integers(1, public.max_weight + 1, setting.cohort)]
    if task.private is None:
        aggregate = aggregator(scheme, public).mean(updates, weights=sizes if setting.weighted else None)
    else:
        model = sha256(public.start.tobytes()).digest()
        aggregate = task.private(public.start.size, setting.cohort).mean(updates, model_hash=model)
        public = replace(public, aggregate=aggregate.value)
    k, honest = len(task.archive.classes), {c: r for c, r in held.items() if c not in pooled}
    truth = Truth(
        archive=task.archive,
        held=honest,
        counts={c: np.bincount(task.archive.y[rows], minlength=k) for c, rows in honest.items()},
        members=owners[asked] > 0,
        owners=owners[asked],
        challenge=challenge[asked],
        weights={c: w for c, w in zip(held, sizes) if c in honest},
    )
    return Case(aggregate.transcript.view(adversary.corrupted | set(pooled)), public, truth)


def aggregator(scheme: str, public: Public) -> SecureAggregator:
    """A recording aggregator; in process one program holds all keys, so it measures and does not protect."""
    return SecureAggregator(
        scheme,
        clip=public.clip,
        bits=public.bits,
        max_weight=public.max_weight if public.max_weight > 1 else None,
        max_cut=1.0,
        record=True,
    )


def _public(
    task: Task,
    scheme: str,
    setting: Setting,
    outside: NDArray[np.bool_],
    challenge: Index,
    seed: int,
    number: int,
) -> Public:
    from merveil.attacks.probe import build, crafted

    archive = task.archive
    h, w, c = archive.x.shape[1:]
    net = build(task.model, c, h, w, len(archive.classes), **task.options)
    counts = np.maximum(np.bincount(archive.y[~outside], minlength=len(archive.classes)), 1)
    start = net.init(1000 * seed + number)
    weight, secret = counts.sum() / (len(counts) * counts), None
    if setting.crafted == "seer":
        from merveil.attacks import seer

        known = archive.x[outside], archive.y[outside]
        made = seer.plan(*known, weight, setting, 1000 * seed + number // seer.ROUNDS)
        start, secret = seer.prepared(made)
    elif setting.crafted:
        start = crafted(setting.crafted, net, archive.x[outside], 1000 * seed + number, setting.cohort)
    return Public(
        scheme=scheme,
        model=task.model,
        shape=(h, w, c),
        classes=archive.classes,
        start=start,
        lr=task.lr,
        steps=setting.steps,
        clip=task.clip,
        bits=task.bits,
        max_weight=32 if setting.weighted else 1,
        cohort=setting.cohort,
        clips=setting.clips,
        class_weight=weight,
        proxy_x=archive.x[outside],
        proxy_y=archive.y[outside],
        challenge_x=archive.x[challenge],
        challenge_y=archive.y[challenge],
        options=task.options,
        secret=secret,
    )


def client_updates(task: Task, public: Public, held: Sequence[Index]) -> list[NDArray[np.float64]]:
    """Each client's update after `steps` full-batch SGD steps: the network's own training gradient."""
    import torch

    from merveil.attacks.probe import build
    from merveil.attacks.replay import loss_targets

    archive = task.archive
    h, w, c = public.shape
    net = build(task.model, c, h, w, len(public.classes), **public.options)
    flat = np.concatenate(held)
    ready = torch.from_numpy(net.prepare(archive.x[flat]))
    rows = np.arange(len(flat), dtype=np.int64).reshape(len(held), -1)
    targets = loss_targets(torch.from_numpy(archive.y[flat][rows]), public.class_weight)
    params = torch.from_numpy(np.tile(public.start, (len(held), 1)))
    for _ in range(public.steps):
        params = params - public.lr * net.gradients(params, ready, rows, targets, None).value
    return [np.asarray(row, dtype=np.float64) for row in (params.numpy() - public.start)]
