"""UF1 against epsilon, client level: 40 and 68 subjects, and simulated 1,000 and 10,000.

    python benchmarks/frontier.py [--data F.npz | synthetic:subjects=40,clips=8,seed=0] [--seeds 5] [--json]
        [--choose]

The model is `flow-softmax` (75 numbers, 128 on the wire): noise grows with the square root of the size, so a
larger network starts further back. Training is what `merveil evaluate --mode federated --dp` does with it:
each subject is a client; a round is one full-batch gradient a client (the mean over its clips, all of weight
one), clipped to norm 1, the mean over clients, and a step of Adam at the server; rate and rounds are those of
the network's recipe `private`. Folds hold out whole subjects.

--choose repeats how rate and rounds of that recipe were found: nested validation on training people under
the noise of 40 clients at epsilon 1 and 8 (four outer groups, four inner folds, means over seeds).

Noise is that of `protocols.dp`: its mechanism is solved for the epsilon, delta (below one over the subjects)
and rounds at the cohort's own honest floor, and `noise_of_mean` is its standard deviation on the mean. It is
drawn here as continuous Gaussian of that deviation.

What is simulated: a cohort of n subjects is drawn from the training subjects of the fold with replacement
(a subject that is drawn twice counts twice), so its size sets noise and clipping alone. What more *different*
subjects would teach is not in these figures: they are what less noise buys, not what more data buys.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.cli.data import open_data
from merveil.fl.options import resolve
from merveil.mer.data.splits import inner_folds, kfold, parse_protocol
from merveil.mer.metrics import confusion, uf1
from merveil.mer.models.registry import recipe_for
from merveil.mer.models.stacked import build
from merveil.protocols.dp.discrete import solve
from merveil.protocols.registry import get

Floats = NDArray[np.float64]
SUBJECTS = (40, 68, 1_000, 10_000)
EPSILONS = (1.0, 2.0, 4.0, 8.0, 16.0, 80.0)
MODEL, CLIP = "flow-softmax", 1.0
RECIPE = recipe_for(MODEL, "private")
CANDIDATES = [(rounds, rate) for rounds in (20, 40, 80) for rate in (5e-3, 1e-2, 2e-2, 5e-2, 1e-1)]
OUTER = INNER = 4


def features(archive: Any) -> Floats:
    """[n, inputs + 1]: what the network reads of each clip, and a one."""
    height, width, channels = archive.x.shape[1:]
    read = build(MODEL, channels, height, width, len(archive.classes)).prepare(archive.x)
    return np.concatenate([read, np.ones((archive.n, 1))], axis=1).astype(np.float64)


def gradients(x: Floats, y: NDArray[np.int64], owner: NDArray[np.int64], weights: Floats) -> Floats:
    """Each client's mean gradient, clipped to CLIP: [clients, inputs, classes]."""
    scores = x @ weights
    p = np.exp(scores - scores.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    count = np.bincount(owner)
    found = np.zeros((len(count), x.shape[1], weights.shape[1]))
    np.add.at(found, owner, x[:, :, None] * p[:, None, :])
    found /= count[:, None, None]
    norms = np.linalg.norm(found, axis=(1, 2), keepdims=True)
    return found * np.minimum(1, CLIP / np.maximum(norms, 1e-12))


def train(
    x: Floats,
    y: NDArray[np.int64],
    owner: NDArray[np.int64],
    classes: int,
    share: Floats,
    noise: float,
    seed: int,
    rounds: int = RECIPE.epochs,
    rate: float = RECIPE.lr,
) -> Floats:
    """Weights after the rounds; share: of each client in the mean; noise: its deviation a value."""
    rng = np.random.default_rng([seed, 5])
    adam = resolve({"model": MODEL, "rounds": rounds, "server_lr": rate}).server()
    weights = np.zeros(x.shape[1] * classes)
    state = adam.start(weights.size)
    for number in range(rounds):
        each = gradients(x, y, owner, weights.reshape(-1, classes))
        mean = np.tensordot(share, each, 1).ravel() + noise * rng.normal(size=weights.size)
        weights, state = adam.step(weights, -mean, state, number)
    return weights.reshape(-1, classes)


def score(archive: Any, x: Floats, subjects: int | None, noise: float, seed: int) -> float:
    """UF1 of held-out people, five folds of subjects; subjects None: every training subject once."""
    folds = parse_protocol("kfold:5").folds(archive, seed)

    def share(number: int, clients: int) -> Floats:
        even = np.full(clients, 1 / clients)
        if subjects is None:
            return even
        return np.random.default_rng([seed, number, subjects]).multinomial(subjects, even) / subjects

    return pooled(archive, x, folds, noise, 100 * seed, share=share)


def pooled(
    archive: Any,
    x: Floats,
    folds: list[Any],
    noise: float,
    first: int,
    settings: tuple[int, float] = (RECIPE.epochs, RECIPE.lr),
    share: Callable[[int, int], Floats] = lambda number, clients: np.full(clients, 1 / clients),
) -> float:
    """UF1 from counts pooled over folds; fold i draws its noise from seed first + i. settings: rounds, rate;
    share: of (fold, clients), each client's part in the mean [clients]."""
    classes = len(archive.classes)
    matrix = np.zeros((classes, classes), dtype=np.int64)
    for number, fold in enumerate(folds):
        _, owner = np.unique(archive.person[fold.train], return_inverse=True)
        part = share(number, int(owner.max()) + 1)
        weights = train(
            x[fold.train], archive.y[fold.train], owner, classes, part, noise, first + number, *settings
        )
        matrix += confusion(archive.y[fold.test], (x[fold.test] @ weights).argmax(1), classes)
    return float(uf1(matrix))


def deviation(
    dim: int, subjects: int, epsilon: float, scheme: str, delta: float, rounds: int = RECIPE.epochs
) -> float:
    """Noise of the mean, a value, of the mechanism that keeps this epsilon; all clients surviving."""
    honest = get(scheme).params(subjects, 1).honest
    found = solve("skellam", dim, subjects, honest, CLIP, target=epsilon, delta=delta, rounds=rounds, bits=24)
    return found.noise_of_mean(subjects)


def choose(archive: Any, x: Floats, seeds: int, noise: dict[tuple[int, float], float]) -> list[list[float]]:
    """Inner scores without each outer group, mean over them and seeds: [candidate][rounds, rate, epsilons].

    noise: its deviation a value, of (rounds, epsilon).
    """
    inner = [
        inner_folds(archive, fold.train, INNER, group) for group, fold in enumerate(kfold(archive, OUTER, 0))
    ]

    def mean(rounds: int, rate: float, epsilon: float) -> float:
        scores = [
            pooled(archive, x, folds, noise[rounds, epsilon], 1000 * seed + 10 * group, (rounds, rate))
            for group, folds in enumerate(inner)
            for seed in range(seeds)
        ]
        return float(np.mean(scores))

    epsilons = sorted({epsilon for _, epsilon in noise})
    return [[rounds, rate, *(mean(rounds, rate, e) for e in epsilons)] for rounds, rate in CANDIDATES]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="synthetic:subjects=40,clips=8,seed=0")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--scheme", default="secagg")
    parser.add_argument("--delta", type=float, default=1e-5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--choose", action="store_true", help="the choice of rate and rounds, and no table")
    args = parser.parse_args()
    archive, began = open_data(args.data), time.perf_counter()
    x, people = features(archive), len(archive.persons())
    dim = x.shape[1] * len(archive.classes)
    seeds = range(args.seeds)
    if args.choose:
        noise = {
            (rounds, epsilon): deviation(dim, SUBJECTS[0], epsilon, args.scheme, args.delta, rounds)
            for rounds in sorted({rounds for rounds, _ in CANDIDATES})
            for epsilon in (1.0, 8.0)
        }
        for rounds, rate, *each in choose(archive, x, args.seeds, noise):
            told = " ".join(f"{value:.4f}" for value in each)
            print(f"{rounds:3} rounds, rate {rate:g}: {told} mean {np.mean(each):.4f}", flush=True)
        return

    def row(subjects: int | None, epsilon: float | None, noise: float) -> dict[str, Any]:
        found = [score(archive, x, subjects, noise, seed) for seed in seeds]
        simulated = subjects is not None and subjects != people
        return {
            "subjects": subjects or people, "simulated": simulated, "epsilon": epsilon, "noise": noise,
            "uf1": float(np.mean(found)), "low": min(found), "high": max(found),
        }  # fmt: skip

    rows = [row(None, None, 0.0)]
    for subjects in SUBJECTS:
        drawn = None if subjects == people else subjects
        for epsilon in EPSILONS:
            noise = deviation(dim, subjects, epsilon, args.scheme, args.delta)
            rows.append({**row(drawn, epsilon, noise), "subjects": subjects})
    result = {
        "data": args.data, "clips": archive.n, "people": people, "dim": dim, "delta": args.delta,
        "rounds": RECIPE.epochs, "rate": RECIPE.lr, "scheme": args.scheme, "seeds": args.seeds, "rows": rows,
        "seconds": round(time.perf_counter() - began, 1),
    }  # fmt: skip
    print(json.dumps(result) if args.json else table(result))


def table(result: dict[str, Any]) -> str:
    """Markdown: one line a cohort, one column an epsilon, mean UF1 [least, most] over the seeds."""
    epsilons = sorted({row["epsilon"] for row in result["rows"] if row["epsilon"] is not None})
    clear = result["rows"][0]
    lines = [
        f"{result['people']} people, {result['clips']} clips, no noise: UF1 {_cell(clear)}",
        "",
        "| subjects | " + " | ".join(f"epsilon {e:g}" for e in epsilons) + " |",
        "|---" * (len(epsilons) + 1) + "|",
    ]
    for subjects in SUBJECTS:
        rows = {row["epsilon"]: row for row in result["rows"][1:] if row["subjects"] == subjects}
        label = f"{subjects:,}" + (" (simulated)" if rows[epsilons[0]]["simulated"] else "")
        lines.append(f"| {label} | " + " | ".join(_cell(rows[e]) for e in epsilons) + " |")
    return "\n".join(lines)


def _cell(row: dict[str, Any]) -> str:
    return f"{row['uf1']:.2f} [{row['low']:.2f}, {row['high']:.2f}]".replace("0.", ".")


if __name__ == "__main__":
    main()
