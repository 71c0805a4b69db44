"""Try an attack on a scheme: record its setting, let it guess from the views, score with the truth.

Guarantees: the order is record, infer on all rounds, then score; `infer` is never called with a truth.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from merveil.attacks.base import Attack, Finding
from merveil.attacks.games import Game, games
from merveil.attacks.protocol import FULL, Build, Field, sound
from merveil.attacks.scenario import Setting, Task, largest_cohort, record
from merveil.attacks.sums import record_sums
from merveil.attacks.training import Course, courses
from merveil.attacks.wire import Wire
from merveil.mer.errors import InputError
from merveil.protocols.policy import Policy

# One clip on the zoo's network with a fully connected first layer, coded as its federations code it.
WIDE = Setting(clips=1, cohort=16, rounds=5, model="flow-mlp", options=(("hidden", 16),), clip=16.0, bits=24)
# A wide ReLU layer on the pixels; its gradients are small, and so is the bound on them.
RELU = Setting(clips=1, cohort=5, rounds=1, model="relu-mlp", options=(("hidden", 64),), clip=1.0, bits=24)
# What each attack is tried on in the quick form. Sizes give the power that docs/attacks.md states.
SETTINGS: dict[str, Setting] = {
    "one-clip": Setting(clips=1, cohort=16, rounds=5),
    "one-clip-wide": WIDE,
    "one-clip-steps": replace(WIDE, steps=5, lr=0.5),
    "four-clips": Setting(clips=4, cohort=5, rounds=3),
    "five-clips": Setting(clips=1, cohort=5, rounds=10, model="flow-mlp", clip=16.0, bits=24),
    "wide-sum": Setting(clips=2, cohort=5, rounds=24, model="flow-mlp", clip=16.0, bits=24),
    "relu-batch": replace(RELU, clips=6, rounds=3),
    "relu-sum": replace(RELU, cohort=6, rounds=10),
    # Twelve thresholds a clip of the cohort.
    "crafted": replace(RELU, cohort=8, rounds=4, options=(("hidden", 96),), clip=16.0, crafted="bins"),
    # 24 clips: of 8, an honest layer of 256 units gives each away too (some unit is woken by it alone).
    "trapped": replace(RELU, cohort=24, rounds=2, options=(("hidden", 256),), clip=16.0, crafted="trap"),
    # 64 clips a sum, of which A24-sum rebuilds little; one prepared model for forty rounds.
    "seer": Setting(
        clips=4,
        cohort=16,
        rounds=40,
        model="flow-mlp",
        options=(("hidden", 64),),
        clip=16.0,
        bits=24,
        people=240,
        crafted="seer",
    ),
    "one-clip-pool": replace(WIDE, colluders=4, rounds=7),
    "few-clips-pool": Setting(clips=2, cohort=12, rounds=20, colluders=3),
    "few-clips": Setting(clips=2, cohort=20, rounds=32),
    "small-sum": Setting(clips=2, cohort=5, rounds=24),
    "weighted": Setting(clips=1, cohort=20, rounds=5, weighted=True),
    "persons": Setting(
        clips=4,
        cohort=10,
        rounds=8,
        by_person=True,
        model="flow-mlp",
        options=(("hidden", 16),),
        clip=16.0,
        bits=24,
        people=40,
    ),
    # The sums of exact-ridge. The third has 231,534 numbers a client: few rounds, seconds under ckks.
    "gram-sum": Setting(clips=2, cohort=5, rounds=12, sums=3),
    "gram": Setting(clips=2, cohort=12, rounds=8, sums=3),
    "moments-sum": Setting(clips=2, cohort=5, rounds=24, sums=2),
    "moments": Setting(clips=2, cohort=20, rounds=10, sums=2),
}
COURSE = Course()
LONG_COURSE = Course(references=128, targets=6)  # the long form
LEAST_COHORT = 5  # secure schemes refuse fewer by default
COHORTS = (2, 5, 10, 20, 60)


_NOTHING: Any = None  # a game of noise has no public task


@dataclass(frozen=True, eq=False)
class Trial:
    """A finding, and what pictures and tests need of the way to it."""

    attack: Attack
    scheme: str
    finding: Finding
    guesses: list[Any] = field(repr=False)
    cases: list[Any] = field(repr=False)


def minding(scheme: str) -> Build:
    """Clients that answer only for survivor sets that differ by two or more, or are equal."""
    floor = partial(Policy, schemes=frozenset({scheme}), min_difference=2)
    return replace(sound(scheme), policy=floor, label=f"{scheme}, min_difference 2")


# Plays on fields whose clients' policy is part of the question.
FLOORS: dict[str, Callable[[str], Build]] = {"minding": minding, "open": sound}
# Clients, rounds and plays of attacks on the sums of many rounds, in the long form: 50 x 200 as Lam et al.
# have it; a `ckks` round of 50 clients takes seconds, so there it is fewer.
LONG_SUMS = {"A21-rounds": {"plain": (50, 200, 4), "secagg": (50, 200, 2), "ckks": (12, 48, 2)}}


def fitted(setting: Setting, task: Task) -> Setting:
    """The setting with as many clients as the archive has room for; InputError below five."""
    archive = setting.on(task).archive
    room = largest_cohort(archive, setting.clips, setting.by_person)
    if room < min(LEAST_COHORT, setting.cohort):
        raise InputError(
            f"attacks need at least {LEAST_COHORT} clients of {setting.clips} clips and as many clips again "
            f"that take no part; this archive has room for {room} such clients"
        )
    return replace(setting, cohort=min(setting.cohort, room))


def run(attack: Attack, cases: Sequence[Any], seed: int) -> tuple[list[Any], Finding]:
    """Guesses from the views, then the finding from the truths."""
    rng = np.random.default_rng([seed, 99])
    guesses = [attack.infer(case.view, case.public, rng) for case in cases]
    return guesses, attack.score(guesses, [case.truth for case in cases], rng)


def try_attack(
    attack: Attack, task: Task, scheme: str, seed: int = 0, setting: Setting | None = None
) -> Trial:
    """One attack against one scheme's real frames. InputError: too little data for its setting."""
    if attack.setting == "wire":
        return try_on_wires(attack, scheme, [Wire(scheme)], seed)
    if attack.setting in ("protocol", *FLOORS):
        return played(attack, scheme, seed)
    if attack.setting == "noise":
        return try_on_games(attack, scheme, games(attack.id, scheme), seed)
    if attack.setting == "course":
        return try_on_courses(attack, task, scheme, seed)
    if attack.setting == "gate":
        return try_on_gates(attack, scheme, seed)
    if attack.setting == "site":
        return try_on_sites(attack, scheme, seed)
    chosen = fitted(setting or SETTINGS[attack.setting], task)
    recorder = record_sums if chosen.sums else record
    cases = recorder(task, scheme, chosen, attack.adversary, seed)
    guesses, finding = run(attack, cases, seed)
    return Trial(attack, scheme, finding, guesses, cases)


def played(attack: Attack, scheme: str, seed: int, full: bool = False) -> Trial:
    """A protocol attack against a scheme; `full` plays more often, or on more clients and rounds."""
    build = FLOORS.get(attack.setting, sound)(scheme)
    if full and attack.id in LONG_SUMS:
        cohort, rounds, plays = LONG_SUMS[attack.id][scheme]
        longer = replace(build, cohort=cohort, rounds=rounds, label=f"{scheme}, {cohort} x {rounds}")
        return try_on_fields(replace(attack, tries=plays), longer, seed)
    return try_on_fields(attack, build, seed, FULL if full else 1)


def try_on_courses(attack: Attack, task: Task, scheme: str, seed: int, course: Course = COURSE) -> Trial:
    """An attack on whole trainings and their published models."""
    cases = list(courses(task.archive, course, scheme, seed))
    guesses, finding = run(attack, cases, seed)
    return Trial(attack, scheme, finding, guesses, cases)


def try_on_gates(
    attack: Attack, scheme: str, seed: int, times: int = 1, gate: Callable[[], Any] | None = None
) -> Trial:
    """An attack on what a member trains on, in trainings of drawn people; other trainings for each scheme.

    gate: makes what judges models at the member; none given: the one that members have.
    """
    from merveil.attacks.gating import GateField
    from merveil.fl.gate import ModelGate

    label = scheme if gate is None else f"{scheme}, a member without the gate"
    rng = np.random.default_rng([seed, 94])
    own = int.from_bytes(scheme.encode(), "big") % 2**31
    fields = (GateField(gate or ModelGate, scheme, seed + own, i) for i in range(attack.tries * times))
    guesses = [attack.infer(ground, _NOTHING, rng) for ground in fields]
    return Trial(attack, label, attack.score(guesses, [None] * len(guesses), rng), guesses, [])


def try_on_sites(
    attack: Attack, scheme: str, seed: int, times: int = 1, site: Callable[..., Any] | None = None
) -> Trial:
    """An attack on what a site sends and pays for; other rosters and policies for each scheme.

    site: makes the site, as `fl.deploy.site.Site`; none given: that one.
    """
    from merveil.attacks.paying import PayField
    from merveil.fl.deploy.site import Site

    label = scheme if site is None else f"{scheme}, a site without its checks"
    rng = np.random.default_rng([seed, 92])
    own = int.from_bytes(scheme.encode(), "big") % 2**31
    guesses, truths = [], []
    for number in range(attack.tries * times):
        with PayField(site or Site, scheme, seed + own, number) as ground:
            guesses.append(attack.infer(ground, _NOTHING, rng))
            truths.append(ground.scorer())
    return Trial(attack, label, attack.score(guesses, truths, rng), guesses, [])


def try_on_wires(attack: Attack, scheme: str, wires: Sequence[Wire], seed: int) -> Trial:
    """A network attack on rounds that it may disturb; it needs neither a task nor a truth."""
    rng = np.random.default_rng([seed, 98])
    nothing: Any = None
    guesses = [attack.infer(wire, nothing, rng) for wire in wires]
    return Trial(attack, scheme, attack.score(guesses, [None] * len(guesses), rng), guesses, [])


def try_on_games(attack: Attack, label: str, make: Game, seed: int, times: int = 1) -> Trial:
    """An attack on noise, in games of their own; `times` as many as in its quick form."""
    rng = np.random.default_rng([seed, 96])
    played = [make(number) for number in range(attack.tries * times)]
    guesses = [attack.infer(view, _NOTHING, rng) for view, _ in played]
    finding = attack.score(guesses, [truth for _, truth in played], rng)
    return Trial(attack, label, finding, guesses, [])


def try_on_fields(attack: Attack, build: Build, seed: int, times: int = 1) -> Trial:
    """A protocol attack, played on fresh federations of a build; `times` as often as its quick form."""
    rng = np.random.default_rng([seed, 97])
    guesses, truths = [], []
    nothing: Any = None
    for number in range(attack.tries * times):
        ground = Field(build, rng, number, seed, times)
        guesses.append(attack.infer(ground, nothing, rng))
        truths.append(ground.scorer())
    return Trial(attack, build.label, attack.score(guesses, truths, rng), guesses, [])


def cohort_curve(
    attack: Attack, task: Task, scheme: str, seed: int = 0, rounds: int = 12
) -> dict[int, Finding]:
    """An attack on the sum at the cohorts of COHORTS that the archive has room for."""
    setting = SETTINGS[attack.setting]
    room = largest_cohort(setting.on(task).archive, setting.clips, setting.by_person)
    found = {}
    for cohort in [c for c in COHORTS if c <= room]:
        trial = try_attack(attack, task, scheme, seed, replace(setting, cohort=cohort, rounds=rounds))
        found[cohort] = trial.finding
    return found


__all__ = [
    "COHORTS",
    "SETTINGS",
    "Trial",
    "cohort_curve",
    "played",
    "run",
    "try_attack",
    "try_on_courses",
    "try_on_fields",
    "try_on_games",
    "try_on_gates",
    "try_on_sites",
    "try_on_wires",
]
