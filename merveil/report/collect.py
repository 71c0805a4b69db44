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
from merveil.protocols.registry import names
from merveil.report import measure, words
from merveil.report.parts import Parts, open_out

if TYPE_CHECKING:
    from merveil.attacks.scenario import Task
    from merveil.mer.data.archive import Archive

FORMAT = 1
Stage = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What to compare. rounds None: the number frozen with the model."""

    source: str
    schemes: tuple[str, ...]
    model: str = "ststnet"
    protocol: str = "kfold:5"
    clients: str = "subject"
    rounds: int | None = None
    seed: int = 0


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
    """InputError for an unknown scheme, model, protocol or client rule, before anything runs."""
    from merveil.fl.clients import parse_clients
    from merveil.mer.data.splits import parse_protocol
    from merveil.mer.models.registry import get

    known = names()
    for scheme in settings.schemes:
        if scheme not in known:
            raise InputError(f"there is no scheme {scheme!r}; there are: {', '.join(known)}")
    if not settings.schemes or len(set(settings.schemes)) != len(settings.schemes):
        raise InputError("--schemes names each scheme to compare once, such as plain,secagg+")
    parse_protocol(settings.protocol)
    parse_clients(settings.clients)
    if get(settings.model).kind != "network":
        raise InputError(f"{settings.model} is no network: a federation cannot train it")
    if settings.rounds is not None and settings.rounds < 1:
        raise InputError(f"--rounds must be 1 or more, not {settings.rounds}")


def stages(settings: Settings) -> int:
    """How many stages `collect` reports."""
    return 2 + 3 * len(settings.schemes)


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
        "versions": versions(),
    }
    parts = Parts(open_out(out), shared)
    control = progress.run(
        "positive controls", lambda: parts.get("controls", lambda: measure.controls(task, settings))
    )
    schemes = [_scheme(archive, task, settings, parts, control, s, progress) for s in settings.schemes]
    sums = progress.run("what the sum tells", lambda: parts.get("sums", lambda: measure.sums(task, settings)))
    _same_as_plain(schemes)
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
        "baselines": schemes[0]["recognition"].pop("baselines"),
        "disclosure": schemes[0]["recognition"].pop("disclosure"),
        "versions": versions(),
        "seconds": round(perf_counter() - started, 3),
        "pictures": {"truth": control["truth"], **{s["name"]: s.pop("pictures") for s in schemes}},
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


def _scheme(
    archive: "Archive",
    task: "Task",
    settings: Settings,
    parts: Parts,
    control: dict[str, Any],
    scheme: str,
    progress: Progress,
) -> dict[str, Any]:
    recognition = progress.run(
        f"{scheme}: federated training",
        lambda: parts.get(f"recognition-{scheme}", lambda: measure.recognition(archive, settings, scheme)),
    )
    leakage = progress.run(
        f"{scheme}: attacks",
        lambda: parts.get(f"leakage-{scheme}", lambda: measure.leakage(task, settings, scheme, control)),
    )
    cost = progress.run(
        f"{scheme}: cost of a round",
        lambda: parts.get(f"cost-{scheme}", lambda: measure.cost(scheme, recognition)),
    )
    return {
        "name": scheme,
        "what": words.what(scheme),
        "trust": words.trust(scheme),
        "guarantee": recognition.pop("guarantee"),
        "recognition": recognition,
        "leakage": leakage["attacks"],
        "cost": cost,
        "pictures": leakage["pictures"],
    }


def _same_as_plain(schemes: Sequence[dict[str, Any]]) -> None:
    """Mark schemes whose predictions are those of `plain` to the last bit (None: no `plain`)."""
    plain = next((s for s in schemes if s["name"] == "plain"), None)
    for scheme in schemes:
        own = scheme["recognition"]["predictions_sha256"]
        same = None if plain is None else own == plain["recognition"]["predictions_sha256"]
        scheme["recognition"]["same_as_plain"] = same
