"""Everything a comparison measures, scheme by scheme: recognition, leakage, cost, guarantee.

Guarantees: all schemes train on the same folds with the same seed, so exact ones must give the same
predictions to the last bit, and that is checked; each attack has its positive control beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from merveil.mer.errors import InputError
from merveil.report import measure, words
from merveil.report.mechanism import DELTA, NORM_CLIP, Mechanism
from merveil.report.parts import Parts, open_out

if TYPE_CHECKING:
    from merveil.attacks.scenario import Task
    from merveil.mer.data.archive import Archive

FORMAT = 1
Stage = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What to compare. rounds None: the number frozen with the model.

    delta, norm_clip: of the mechanisms with differential privacy.
    """

    source: str
    mechanisms: tuple[Mechanism, ...]
    model: str = "ststnet"
    protocol: str = "kfold:5"
    clients: str = "subject"
    rounds: int | None = None
    seed: int = 0
    delta: float = DELTA
    norm_clip: float = NORM_CLIP

    @property
    def bare(self) -> tuple[str, ...]:
        """The schemes, without differential privacy."""
        return tuple(m.scheme for m in self.mechanisms if not m.private)

    @property
    def private(self) -> tuple[Mechanism, ...]:
        return tuple(m for m in self.mechanisms if m.private)


@dataclass
class Progress:
    """Says "stage n/m ... seconds" for each part."""

    say: Stage
    total: int
    done: int = 0
    times: dict[str, float] = field(default_factory=dict)

    def run(self, title: str, job: Callable[[], tuple[Any, bool]]) -> Any:
        self.done += 1
        self.say(f"[{self.done}/{self.total}] {title} ...")
        started = perf_counter()
        result, found = job()
        self.times[title] = perf_counter() - started
        end = "from an earlier run" if found else f"{self.times[title]:.1f} s"
        self.say(f"[{self.done}/{self.total}] {title}: {end}")
        return result


def check(settings: Settings) -> None:
    """InputError for an unknown model, protocol or client rule, before anything runs."""
    from merveil.fl.clients import parse_clients
    from merveil.mer.data.splits import parse_protocol
    from merveil.mer.models.registry import get

    parse_protocol(settings.protocol)
    parse_clients(settings.clients)
    if get(settings.model).kind != "network":
        raise InputError(f"{settings.model} is no network: a federation cannot train it")
    if settings.rounds is not None and settings.rounds < 1:
        raise InputError(f"--rounds must be 1 or more, not {settings.rounds}")


def stages(settings: Settings) -> int:
    """How many stages `collect` reports."""
    private = len(settings.private)
    return 2 + 3 * len(settings.bare) + 2 * private + (private > 0)


def collect(archive: "Archive", settings: Settings, out: Path, progress: Progress) -> dict[str, Any]:
    """Measure everything, part by part under out/parts; the content of report.json plus `pictures`."""
    from merveil.attacks.scenario import Task
    from merveil.mer.evaluation import versions

    started, task = perf_counter(), Task(archive, model=settings.model)
    shared = {
        "format": FORMAT,
        "data": archive.sha256,
        "model": settings.model,
        "protocol": settings.protocol,
        "clients": settings.clients,
        "rounds": settings.rounds,
        "seed": settings.seed,
        "delta": settings.delta,
        "norm_clip": settings.norm_clip,
        "versions": versions(),
    }
    parts = Parts(open_out(out), shared)
    control = progress.run(
        "positive controls", lambda: parts.get("controls", lambda: measure.controls(task, settings))
    )
    schemes: list[dict[str, Any]] = []
    for m in sorted(settings.mechanisms, key=lambda m: m.private):
        held = next((s for s in schemes if s["name"] == m.scheme), None)
        schemes.append(_mechanism(archive, task, settings, parts, control, m, held, progress))
    sums = progress.run("what the sum tells", lambda: parts.get("sums", lambda: measure.sums(task, settings)))
    noisy = _noisy_sums(task, settings, parts, progress)
    _same_as_plain(schemes)
    pictures = {s["name"]: s.pop("pictures") for s in schemes}
    return {
        "format": FORMAT,
        "kind": "compare",
        "data": about(archive, settings.source),
        "model": settings.model,
        "protocol": settings.protocol,
        "clients": settings.clients,
        "rounds": schemes[0]["recognition"]["rounds"],
        "seed": settings.seed,
        "schemes": schemes,
        "sums": sums["curves"],
        "noisy_sums": noisy,
        "baselines": schemes[0]["recognition"].pop("baselines"),
        "disclosure": schemes[0]["recognition"].pop("disclosure"),
        "versions": versions(),
        "seconds": round(perf_counter() - started, 3),
        "pictures": {"truth": control["truth"], **pictures},
    }


def about(archive: "Archive", source: str) -> dict[str, Any]:
    """Which data, and whether they are faces of people at all."""
    datasets, counts = np.unique(archive.dataset, return_counts=True)
    return {
        "source": source,
        "sha256": archive.sha256,
        "clips": archive.n,
        "persons": len(archive.persons()),
        "datasets": {str(name): int(count) for name, count in zip(datasets, counts)},
        "classes": list(archive.classes),
        "synthetic": set(datasets.tolist()) == {"synthetic"},
    }


def _mechanism(
    archive: "Archive",
    task: "Task",
    settings: Settings,
    parts: Parts,
    control: dict[str, Any],
    mechanism: Mechanism,
    bare: dict[str, Any] | None,
    progress: Progress,
) -> dict[str, Any]:
    """One row. bare: the row of the same scheme without noise, whose frames a private mechanism shares."""
    name, key = mechanism.name, mechanism.key
    recognition = progress.run(
        f"{name}: federated training",
        lambda: parts.get(f"recognition-{key}", lambda: measure.recognition(archive, settings, mechanism)),
    )
    if bare is None:
        leakage = progress.run(
            f"{name}: attacks",
            lambda: parts.get(f"leakage-{key}", lambda: measure.leakage(task, settings, key, control)),
        )
    else:
        leakage = {"attacks": bare["leakage"], "pictures": bare["pictures"]}
    cost = progress.run(
        f"{name}: cost of a round",
        lambda: parts.get(f"cost-{key}", lambda: measure.cost(mechanism, settings, recognition)),
    )
    return {
        "name": name,
        "mechanism": {"scheme": mechanism.scheme, "dp": mechanism.dp, "epsilon": mechanism.epsilon},
        "what": words.what(mechanism.scheme) + words.noise(mechanism.dp),
        "trust": words.trust(mechanism.scheme),
        "guarantee": recognition.pop("guarantee"),
        "recognition": recognition,
        "leakage": leakage["attacks"],
        "cost": cost,
        "pictures": leakage["pictures"],
    }


def _noisy_sums(task: "Task", settings: Settings, parts: Parts, progress: Progress) -> list[dict[str, Any]]:
    """What the sum tells with and without noise, at one cohort; empty without a private mechanism."""
    if not settings.private:
        return []
    found: dict[str, Any] = progress.run(
        "what noise leaves of the sum",
        lambda: parts.get(
            "noisy-sums",
            lambda: measure.noisy_sums(task, settings),
            mechanisms=[m.key for m in settings.private],
        ),
    )
    points: list[dict[str, Any]] = found["points"]
    return points


def _same_as_plain(schemes: Sequence[dict[str, Any]]) -> None:
    """Mark schemes whose predictions are those of `plain` to the last bit (None: no `plain`)."""
    plain = next((s for s in schemes if s["name"] == "plain"), None)
    for scheme in schemes:
        own = scheme["recognition"]["predictions_sha256"]
        same = None if plain is None else own == plain["recognition"]["predictions_sha256"]
        scheme["recognition"]["same_as_plain"] = same
