"""The measurements of a comparison: each a function of data, settings and scheme, and a plain dict."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from merveil.report.png import data_uri, motion

if TYPE_CHECKING:
    from merveil.attacks.runner import Trial
    from merveil.attacks.scenario import Task
    from merveil.mer.data.archive import Archive
    from merveil.report.collect import Settings
    from merveil.report.mechanism import Mechanism

ON_FRAMES = ("A24", "A17", "A20", "A25", "A26")
ON_SUMS = ("A25-sum", "A26-sum")
PICTURES = 8
TIMED_ROUNDS = 5


def on_frames() -> list[Any]:
    """The attacks on what single clients send, A24 first: the one with pictures.

    The rest of the catalogue is `merveil audit`'s: what a cheating party could do is not a matter of degree.
    """
    from merveil.attacks.registry import get

    return [get(name) for name in ON_FRAMES]


def recognition(archive: "Archive", settings: "Settings", mechanism: "Mechanism") -> dict[str, Any]:
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
        scheme=mechanism.scheme,
        clients=settings.clients,
        rounds=settings.rounds,
        seed=settings.seed,
        options=mechanism.options(settings.delta, settings.norm_clip, settings.clients),
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
        "privacy": info["privacy"],
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
    from merveil.attacks.registry import get
    from merveil.attacks.runner import cohort_curve

    curves = []
    for attack in map(get, ON_SUMS):
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


def noisy_sums(task: "Task", settings: "Settings") -> dict[str, Any]:
    """A25-sum at one cohort for the exact sum and for each private mechanism: the same rounds, plus noise.

    The cohort is the largest that the archive has room for, up to 20. The noise is that of a federation of so
    many clients which keeps the same epsilon over the same rounds.
    """
    from merveil.attacks.registry import get
    from merveil.attacks.runner import COHORTS, SETTINGS, try_attack
    from merveil.attacks.scenario import largest_cohort

    attack = get("A25-sum")
    setting = SETTINGS[attack.setting]
    room = largest_cohort(task.archive, setting.clips)
    most = max((c for c in COHORTS if c <= min(room, 20)), default=setting.cohort)
    setting, points = replace(setting, cohort=most), []
    for m in (None, *settings.private):
        held = task if m is None else replace(task, private=_maker(m, settings))
        scheme = settings.bare[0] if m is None else m.scheme
        finding = try_attack(attack, held, scheme, settings.seed + 3, setting).finding
        points.append({"name": m.name if m else "exact sum", "cohort": most, **finding.to_json()})
    return {"points": points}


def _maker(mechanism: "Mechanism", settings: "Settings", least: int = 1) -> Callable[[int, int], Any]:
    """Aggregators with the run's guarantee for any number of clients; each call begins an unspent budget.

    least: rounds that the budget must last for, where the run has fewer.
    """
    from merveil.fl.dp import PrivateAggregator, mechanism_for
    from merveil.fl.dp_ledger import Budget
    from merveil.fl.options import resolve

    own = mechanism.options(settings.delta, settings.norm_clip, settings.clients)
    rounds = {} if settings.rounds is None else {"rounds": settings.rounds}
    base = {"model": settings.model, "scheme": mechanism.scheme, "clients": settings.clients}
    options = resolve({**base, **own, **rounds})
    options = replace(options, rounds=max(options.rounds, least))
    found: dict[tuple[int, int], Any] = {}

    def make(dim: int, clients: int) -> Any:
        budget = Budget(None, "attack", options.epsilon, options.delta)
        if (dim, clients) not in found:
            found[dim, clients] = mechanism_for(options, dim, clients, budget)
        return PrivateAggregator(mechanism.scheme, found[dim, clients], budget, record=True)

    return make


def cost(mechanism: "Mechanism", settings: "Settings", recognition: dict[str, Any]) -> dict[str, Any]:
    """Median time of one aggregation with the run's clients and parameters, all parties in this process."""
    from merveil.fl.aggregator import SecureAggregator

    rng = np.random.default_rng(0)
    clients, dim = max(recognition["clients_in_a_fold"]), recognition["parameters"]
    updates = [rng.uniform(-0.5, 0.5, dim) for _ in range(clients)]
    own: dict[str, Any] = {"model_hash": bytes(32)} if mechanism.private else {}
    aggregator: Any = SecureAggregator(mechanism.scheme)
    if mechanism.private:
        aggregator = _maker(mechanism, settings, TIMED_ROUNDS)(dim, clients)
    seconds = []
    for _ in range(TIMED_ROUNDS):
        started = perf_counter()
        aggregator.mean(updates, **own)
        seconds.append(perf_counter() - started)
    return {
        "uplink_bytes_per_client": recognition["uplink_bytes_per_client"],
        "aggregation_seconds": float(np.median(seconds[1:])),
        "clients": clients,
        "parameters": dim,
    }
