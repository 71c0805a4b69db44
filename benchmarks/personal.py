"""What own clips add for a returning person: `python benchmarks/personal.py --data F.npz`.

Prints UF1 of `exact-ridge` on the same clips before and after, with the paired interval over people
(`merveil.mer.personal`). It is no LOSO score, and stands in no table of them.
"""

import argparse

import numpy as np

from merveil.mer.data.archive import load_archive
from merveil.mer.data.splits import parse_protocol
from merveil.mer.metrics import confusion, mean_difference, uf1
from merveil.mer.personal import personalised


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True)
    archive = load_archive(parser.parse_args().data)
    found = personalised(archive, parse_protocol("loso").folds(archive, 0))
    truth, person, k = archive.y[found.rows], archive.person[found.rows], len(archive.classes)
    guess = [p.argmax(1) for p in (found.before, found.after)]
    scores = [uf1(confusion(truth, g, k)) for g in guess]
    gain, (low, high) = mean_difference(truth, [guess[0]], [guess[1]], person, k)
    print(f"{len(truth)} clips of {len(np.unique(person))} people")
    print(f"UF1 {scores[0]:.3f} before, {scores[1]:.3f} after: {gain:+.3f} ({low:+.3f} to {high:+.3f})")


if __name__ == "__main__":
    main()
