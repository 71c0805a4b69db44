"""What the sums of exact-ridge tell, by cohort: `python benchmarks/gram.py [--repeats 5] [--data F.npz]`.

People are drawn (`attacks.population`), eight clips each, or are those of an archive with four clips or more;
half the clips of every member take part, the other half are the fresh clips of the person test, and as many
people stay outside. Draws whose members show one class only are passed over: they train nothing. No scheme
is named: the sums are what every scheme publishes. Prints one Markdown row a cohort.
"""

import argparse
from itertools import count, islice

import numpy as np
from numpy.typing import NDArray

from merveil.attacks.gram import distances, span_of, took_part
from merveil.attacks.population import population
from merveil.attacks.stats import auc
from merveil.mer.data.archive import Archive, load_archive
from merveil.mer.exact import Settings, basis_from, gram_sums, warps_from
from merveil.mer.exact_features import block_means
from merveil.mer.exact_loso import Clips

COHORTS = (2, 5, 10, 20, 60, 100, 180, 360)
EACH = 8  # clips of a drawn person, half of them in the sum
LEAST = 4  # clips of a person of an archive

Whole = NDArray[np.int64]


def drawn_people(cohort: int, seed: int, data: Archive | None) -> tuple[Archive, Whole]:
    """An archive and 2 * cohort numbers of its people (0 to P-1 in `np.unique`'s order), members first."""
    if data is None:
        return population(2 * cohort, EACH, seed), np.arange(2 * cohort)
    _, counts = np.unique(data.person, return_counts=True)
    enough = np.flatnonzero(counts >= LEAST)
    return data, np.random.default_rng(seed).permutation(enough)[: 2 * cohort]


def play(cohort: int, seed: int, data: Archive | None) -> dict[str, float] | None:
    """One federation of `cohort` people: what its sums tell; None where they show one class only."""
    archive, chosen = drawn_people(cohort, seed, data)
    person = np.unique(archive.person, return_inverse=True)[1]
    halves = [(mine[0::2], mine[1::2]) for mine in (np.flatnonzero(person == p) for p in chosen)]
    rows = np.concatenate([first for first, _ in halves[:cohort]])
    if len(np.unique(archive.y[rows])) < 2:
        return None
    clips = Clips(archive, Settings(len(archive.classes), archive.x.shape[1:3]))
    warps = warps_from(clips.first(rows), clips.names, clips.settings)
    block = block_means(clips.normal, clips.sites.tolist(), warps)
    basis = basis_from(clips.second(rows, block), clips.settings.mirror)
    span = span_of(gram_sums(basis.features(block[rows]), clips.y[rows], basis))
    inside, near = took_part(block, span, basis), -distances(block, span, basis)
    fresh = np.array([near[second].max() for _, second in halves])  # a person's nearest fresh clip
    others = np.concatenate([np.concatenate(pair) for pair in halves[cohort:]])
    return {
        "clips": len(rows),
        "rank": span.axes.shape[1],
        "found": float(inside[rows].mean()),
        "false": float(inside[others].mean()),
        "clip": auc(near[rows], near[others]),
        "person": auc(fresh[:cohort], fresh[cohort:]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--data", help="people of an archive in place of drawn ones")
    parser.add_argument("--cohorts", default=",".join(map(str, COHORTS)))
    args = parser.parse_args()
    data = load_archive(args.data) if args.data else None
    print("| people | clips | rank | members found | others taken for members | AUC, clip | AUC, person |")
    print("|" + "---|" * 7)
    for cohort in map(int, args.cohorts.split(",")):
        plays = (play(cohort, seed, data) for seed in count())
        found = list(islice((f for f in plays if f is not None), args.repeats))
        mean = {key: float(np.mean([f[key] for f in found])) for key in found[0]}
        print(
            f"| {cohort} | {mean['clips']:.0f} | {mean['rank']:.0f} | {mean['found']:.3f} | "
            f"{mean['false']:.3f} | {mean['clip']:.3f} | {mean['person']:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
