"""What own clips add for a returning person: `python benchmarks/personal.py --data F.npz [--k 1,2,4,8]`.

Prints UF1 of `exact-ridge`, or of `--model` (a network, trained centrally by its default recipe), on the
same clips without and with K own ones, with the paired interval over people (`merveil.mer.personal`). It is
no LOSO score, and stands in no table of them. `--choose` compares values of lam on training people only: for
each of five outer groups of people four inner folds of the others say which is best, and the group is scored
with it.
"""

import argparse
from collections.abc import Sequence

import numpy as np

from merveil.mer.data.archive import Archive, load_archive
from merveil.mer.data.splits import Fold, kfold, parse_protocol
from merveil.mer.loso import central_predictions
from merveil.mer.metrics import confusion, mean_difference, uf1
from merveil.mer.personal import Personal, personalised, summary
from merveil.mer.personal_head import LAM, personalised_network

LAMS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
OUTER, INNER = 5, 4


def found(
    archive: Archive, folds: Sequence[Fold], k: int, model: str, seed: int, lams: Sequence[float]
) -> list[Personal]:
    """One Personal a value of lam, of models trained once."""
    run = central_predictions(archive, folds, model=model, seed=seed, keep_models=True)
    if run.models is None:
        raise SystemExit(f"{model} is not a network")
    return [personalised_network(archive, folds, *run.models, k, lam=lam) for lam in lams]


def score(archive: Archive, one: Personal) -> float:
    """Pooled UF1 with own clips."""
    return float(uf1(confusion(archive.y[one.rows], one.after.argmax(1), len(archive.classes))))


def choose(archive: Archive, k: int, model: str, seed: int) -> None:
    """Print the mean inner UF1 of each lam, the choices, and the outer groups' score with these choices."""
    inner, parts, chosen = [], [], []
    for outer in kfold(archive, OUTER, seed):
        others = archive.select(outer.train)
        tried = found(others, kfold(others, INNER, seed), k, model, seed, LAMS)
        inner.append([score(others, one) for one in tried])
        chosen.append(LAMS[int(np.argmax(inner[-1]))])
        parts += found(archive, [outer], k, model, seed, [chosen[-1]])
    print("mean inner UF1: " + ", ".join(f"{lam} {v:.3f}" for lam, v in zip(LAMS, np.mean(inner, 0))))
    joined = [
        np.concatenate([getattr(p, name) for p in parts]) for name in ("rows", "seen", "before", "after")
    ]
    few = {name: clips for p in parts for name, clips in p.left_out.items()}
    print(f"chosen {chosen}; outer groups: {spoken(archive, Personal(*joined, few))}", flush=True)


def spoken(archive: Archive, one: Personal) -> str:
    """The figures on one line."""
    figures = summary(archive, one)
    gain = figures["difference"]["uf1"]
    return (
        f"k {figures['k']}: {figures['clips']} clips of {figures['people']} people, UF1 "
        f"{figures['before']['uf1']:.3f} without, {figures['after']['uf1']:.3f} with: {gain['value']:+.3f} "
        f"({gain['ci95'][0]:+.3f} to {gain['ci95'][1]:+.3f})"
    )


def over_seeds(archive: Archive, folds: Sequence[Fold], ks: Sequence[int], model: str, seeds: int) -> None:
    """Print mean UF1 over training seeds without and with own clips, and the paired interval of the gain."""
    runs = [central_predictions(archive, folds, model=model, seed=s, keep_models=True) for s in range(seeds)]
    for k in ks:
        tried = [personalised_network(archive, folds, *run.models, k) for run in runs if run.models]
        rows = tried[0].rows
        truth, person, classes = archive.y[rows], archive.person[rows], len(archive.classes)
        guesses = [[getattr(one, name).argmax(1) for one in tried] for name in ("before", "after")]
        gain, (low, high) = mean_difference(truth, *guesses, person, classes)
        means = [np.mean([uf1(confusion(truth, g, classes)) for g in runs_]) for runs_ in guesses]
        print(
            f"k {k}, {seeds} seeds: {len(rows)} clips of {len(np.unique(person))} people, UF1 {means[0]:.3f} "
            f"without, {means[1]:.3f} with: {gain:+.3f} ({low:+.3f} to {high:+.3f})",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--k", default="1,2,4,8")
    parser.add_argument("--model", default="exact-ridge")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lam", type=float, action="append", help="of networks; may be repeated")
    parser.add_argument("--seeds", type=int, help="of a network: the mean over seeds 0 to N - 1")
    parser.add_argument("--choose", action="store_true")
    args = parser.parse_args()
    archive = load_archive(args.data)
    folds = parse_protocol("loso").folds(archive, 0)
    ks = [int(k) for k in args.k.split(",")]
    if args.seeds:
        over_seeds(archive, folds, ks, args.model, args.seeds)
        return
    for k in ks:
        if args.choose:
            choose(archive, k, args.model, args.seed)
        elif args.model == "exact-ridge":
            print(spoken(archive, personalised(archive, folds, k)), flush=True)
        else:
            for one in found(archive, folds, k, args.model, args.seed, args.lam or [LAM]):
                print(f"lam {one.how['lam']}: {spoken(archive, one)}", flush=True)


if __name__ == "__main__":
    main()
