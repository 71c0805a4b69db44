"""Personalisation, apart from LOSO: what a person's own labelled clips add for that very person.

The model of a fold never saw the person. Half of the person's clips, with labels, then join the ridge's third
sum, OWN times each, and the head is solved anew: registration, standardisation and axes stay as they were.
The other half is predicted, with and without; then the halves change places. Both columns are of the same
clips, and neither is a LOSO score: the second has seen the person. It is what a returning user would get.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from merveil.mer.errors import InputError
from merveil.mer.exact import ExactModel, coefficients, gram_sums
from merveil.mer.exact_features import block_means
from merveil.mer.exact_loso import fold_models

if TYPE_CHECKING:
    from merveil.mer.data.archive import Archive
    from merveil.mer.data.splits import Fold

OWN = 4  # times that an own clip counts; a convention, fixed before the first run
LEAST = 4  # clips of a person, below which the person stays out


@dataclass(frozen=True, eq=False)
class Personal:
    """rows: int64 [m], the clips that were predicted; before, after: probabilities [m, K] without and with
    the person's other half."""

    rows: NDArray[np.int64]
    before: NDArray[np.float64]
    after: NDArray[np.float64]


def halves(archive: "Archive", rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A person's clips in two halves: every other one by data set, subject and name; labels play no part."""
    order = sorted(rows.tolist(), key=archive.key)
    return np.array(order[0::2], np.int64), np.array(order[1::2], np.int64)


def personalised(
    archive: "Archive", folds: Sequence["Fold"], *, own: int = OWN, options: Mapping[str, Any] | None = None
) -> Personal:
    """Predict every clip of the people with LEAST clips or more, without and with their other half.

    Raises InputError where nobody has so many clips, own is below 1, or as `exact_ridge_predictions`.
    """
    if own < 1:
        raise InputError(f"a person's own clips count at least once, not {own} times")
    rows: list[NDArray[np.int64]] = []
    before: list[NDArray[np.float64]] = []
    after: list[NDArray[np.float64]] = []
    for fold, model, clips in fold_models(archive, folds, options or {}):
        people = [fold.test[archive.person[fold.test] == p] for p in np.unique(archive.person[fold.test])]
        people = [mine for mine in people if len(mine) >= LEAST]
        if not people:
            continue
        block = block_means(clips.normal, clips.sites.tolist(), model.warps)
        phi = model.basis.features(block)
        third = gram_sums(phi[fold.train], clips.y[fold.train], model.basis)
        for mine in people:
            for seen, asked in _both(halves(archive, mine)):
                extra = gram_sums(phi[seen], clips.y[seen], model.basis)
                solved = coefficients(third + own * extra, model.basis, model.settings.lam)
                person = ExactModel(model.settings, model.warps, model.basis, solved)
                rows.append(asked)
                for found, which in ((before, model), (after, person)):
                    found.append(which.probabilities(clips.normal[asked], clips.sites[asked].tolist()))
    if not rows:
        raise InputError(f"nobody has the {LEAST} clips that personalisation needs")
    return Personal(np.concatenate(rows), np.concatenate(before), np.concatenate(after))


def _both(pair: tuple[Any, Any]) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    return pair, pair[::-1]
