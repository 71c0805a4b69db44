"""The measurements of a comparison: each a function of data, settings and scheme, and a plain dict."""

import hashlib
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from merveil.report.png import data_uri, motion

if TYPE_CHECKING:
    from merveil.attacks.runner import Trial
    from merveil.attacks.scenario import Task
    from merveil.mer.data.archive import Archive
    from merveil.report.collect import Settings

PICTURES = 8
TIMED_ROUNDS = 5


def on_frames() -> list[Any]:
    """The attacks on what single clients send, A24 first: the one with pictures."""
    from merveil.attacks.registry import attacks

    return sorted((a for a in attacks().values() if not a.on_sum), key=lambda a: (a.id != "A24", a.id))


def recognition(archive: "Archive", settings: "Settings", scheme: str) -> dict[str, Any]:
    """Held-out people, predicted once after the last round; the scores of `merveil evaluate`."""
    from merveil.fl.evaluate import federated_predictions
    from merveil.mer.data.splits import parse_protocol
    from merveil.mer.evaluation import allowed, config_sha256, disclosure, score

    folds = parse_protocol(settings.protocol).folds(archive, settings.seed)
    started = perf_counter()
    run = federated_predictions(
        archive,
        folds,
        model=settings.model,
        scheme=scheme,
        clients=settings.clients,
        rounds=settings.rounds,
        seed=settings.seed,
    )
    seconds = perf_counter() - started
    probabilities = allowed(archive, folds, run.probabilities)
    found = score(archive, folds, probabilities, seed=settings.seed)
    info = run.info
    config = {**found, "seed": settings.seed, "config_sha256": config_sha256(info["options"])}
    fixed = f"{info['rounds']} rounds, fixed before the run; {info['clients']} clients ({settings.clients})"
    kept = ("uf1", "uar", "accuracy", "confusion", "undefined", "per_dataset", "ci95", "folds", "baselines")
    return {
        **{name: found[name] for name in kept},
        "predictions_sha256": hashlib.sha256(run.probabilities.tobytes()).hexdigest(),
        "rounds": info["rounds"],
        "clients": info["clients"],
        "clients_in_a_fold": info["clients_in_a_fold"],
        "parameters": info["parameters"],
        "uplink_bytes_per_client": info["uplink_bytes_per_client"],
        "guarantee": info["guarantee"],
        "disclosure": disclosure(archive, config, settings.protocol, fixed, "see each mechanism"),
        "seconds": round(seconds, 3),
    }


def controls(task: "Task", settings: "Settings") -> dict[str, Any]:
    """Every attack where it must win, with the pictures that `plain` gives away."""
    from merveil.attacks.record import record
    from merveil.audits.controls import control_of

    trials = [control_of(attack, task, settings.seed + 1) for attack in on_frames()]
    truth, rebuilt = _pictures(trials[0])
    return {"records": [record(t, t) for t in trials], "truth": truth, "rebuilt": rebuilt}


def leakage(task: "Task", settings: "Settings", scheme: str, control: dict[str, Any]) -> dict[str, Any]:
    """Every attack on one client's frames under the scheme.

    The same clients and clips as in the controls, so the pictures show the same people; `plain` is its own
    control and is not run twice.
    """
    from merveil.attacks.runner import try_attack
    from merveil.attacks.verdict import judge

    rebuilt, found = control["rebuilt"], []
    for attack, held in zip(on_frames(), control["records"]):
        if held["control"]["scheme"] == scheme:
            found.append(held)
            continue
        trial = try_attack(attack, task, scheme, settings.seed + 1)
        verdict = judge(trial.finding, _finding(held), attack.rule)
        same = {k: held[k] for k in ("id", "title", "adversary", "on_sum", "rule", "control")}
        found.append({**same, "scheme": scheme, "verdict": verdict.value, **trial.finding.to_json()})
        if attack.id == "A24":
            rebuilt = _pictures(trial)[1]
    return {"attacks": found, "pictures": rebuilt}


def _finding(held: dict[str, Any]) -> Any:
    """The control's finding, read back from its record."""
    from merveil.attacks.base import Finding

    names_ = ("score", "chance", "n", "unit", "statistic", "mde", "details")
    pairs = {name: tuple(held[name]) for name in ("ci95", "strict")}
    return Finding(**{name: held[name] for name in names_}, **pairs)


def _pictures(trial: "Trial") -> tuple[list[dict[str, str]], list[str]]:
    """Truth and rebuilt clips of the first clients, in their order and not in that of success."""
    from merveil.attacks.replay import scaled

    guess, truth = trial.guesses[0], trial.cases[0].truth
    archive, clients = truth.archive, guess["clients"][:PICTURES]
    channels = archive.meta.channels
    rows = [int(truth.held[c][0]) for c in clients]
    true = [
        {
            "label": archive.classes[int(archive.y[r])],
            "uri": data_uri(motion(scaled(archive.x[[r]])[0], channels)),
        }
        for r in rows
    ]
    return true, [data_uri(motion(image, channels)) for image in guess["images"][: len(rows)]]


def sums(task: "Task", settings: "Settings") -> dict[str, Any]:
    """What the published sum tells, by cohort; exact schemes publish the same sum as `plain`."""
    from merveil.attacks.registry import attacks
    from merveil.attacks.runner import cohort_curve

    curves = []
    for attack in (a for a in attacks().values() if a.on_sum):
        points = cohort_curve(attack, task, "plain", settings.seed + 3)
        curves.append(
            {
                "id": attack.id,
                "title": attack.title,
                "plain_words": attack.plain_words,
                "points": [{"cohort": n, **finding.to_json()} for n, finding in points.items()],
            }
        )
    return {"curves": curves}


def cost(scheme: str, recognition: dict[str, Any]) -> dict[str, Any]:
    """Median time of one aggregation with the run's clients and parameters, all parties in this process."""
    from merveil.fl.aggregator import SecureAggregator

    rng = np.random.default_rng(0)
    clients, dim = max(recognition["clients_in_a_fold"]), recognition["parameters"]
    updates = [rng.uniform(-0.5, 0.5, dim) for _ in range(clients)]
    aggregator, seconds = SecureAggregator(scheme), []
    for _ in range(TIMED_ROUNDS):
        started = perf_counter()
        aggregator.mean(updates)
        seconds.append(perf_counter() - started)
    return {
        "uplink_bytes_per_client": recognition["uplink_bytes_per_client"],
        "aggregation_seconds": float(np.median(seconds[1:])),
        "clients": clients,
        "parameters": dim,
    }
