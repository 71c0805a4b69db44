"""The exact ridge over folds: sums once over all persons, and a fold is what is left without its people.

The first two sums of a fold are the totals minus the part of the people it holds out: whole numbers, so the
difference is the sum over the others to the last bit. Axes and features of a fold then rest on training
people only, so the Gram matrix is summed again in them.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from merveil.mer.exact import (
    WIDTH,
    ExactModel,
    Settings,
    basis_from,
    coefficients,
    gram_sums,
    moment_sums,
    movement_sums,
    warps_from,
)
from merveil.mer.exact_features import Floats, Whole, block_means, movement, normalised

if TYPE_CHECKING:
    from merveil.mer.data.archive import Archive
    from merveil.mer.data.splits import Fold


class Clips:
    """An archive's clips as the exact ridge takes them; what is computed here is per clip, without labels."""

    def __init__(self, archive: "Archive", settings: Settings) -> None:
        self.settings = settings
        self.normal = normalised(archive.x)
        self.moves = movement(self.normal) if settings.register else np.zeros((archive.n, 0), np.int64)
        self.sites, self.y = np.asarray(archive.site), archive.y
        self.names = tuple(np.unique(self.sites).tolist())

    def first(self, rows: NDArray[np.int64]) -> Whole:
        """The first vector of the party that holds these rows."""
        return movement_sums(self.moves[rows], self.sites[rows], self.names)

    def second(self, rows: NDArray[np.int64], block: Whole) -> Whole:
        """The second vector; block: block means of all clips under the warps in force, [n, 147]."""
        return moment_sums(block[rows], self.y[rows], self.settings.classes)


def exact_ridge_predictions(
    archive: "Archive",
    folds: Sequence["Fold"],
    lam: float | None = None,
    register: bool = True,
    mirror: bool = True,
) -> NDArray[np.float64]:
    """Probabilities [n, K] of held-out clips, as baselines' functions give them; NaN where no fold tests.

    Raises InputError for images or settings that do not fit, or a fold that trains on one class.
    """
    options: dict[str, Any] = {
        "register": register,
        "mirror": mirror,
        **({} if lam is None else {"lam": lam}),
    }
    out = np.full((archive.n, len(archive.classes)), np.nan)
    for fold, model, clips in fold_models(archive, folds, options):
        rows = fold.test
        out[rows] = model.probabilities(clips.normal[rows], clips.sites[rows].tolist())
    return out


def fold_models(archive: "Archive", folds: Sequence["Fold"], options: Mapping[str, Any]) -> Any:
    """Yield (fold, trained ExactModel, Clips) for each fold."""
    settings = Settings.make(len(archive.classes), archive.x.shape[1:], options)
    clips = Clips(archive, settings)
    every = np.arange(archive.n)
    total = clips.first(every)
    held: dict[Any, tuple[Whole, Whole]] = {}  # by registration: block means of all clips, their moments
    for fold in folds:
        out = np.setdiff1d(every, fold.train)
        warps = warps_from(total - clips.first(out), clips.names, settings)
        key = tuple(sorted(warps.items(), key=lambda pair: pair[0]))
        if key not in held:
            block = block_means(clips.normal, clips.sites.tolist(), warps)
            held[key] = (block, clips.second(every, block))
        block, moments = held[key]
        basis = basis_from(moments - clips.second(out, block), settings.mirror)
        phi = basis.features(block[fold.train])
        solved = coefficients(gram_sums(phi, clips.y[fold.train], basis), basis, settings.lam)
        yield fold, ExactModel(settings, warps, basis, solved), clips


def parameters(channels: int, height: int, width: int, classes: int) -> int:
    """Trained numbers: the coefficients of 677 features."""
    return WIDTH * classes


def scores_of(model: ExactModel, clips: Clips, rows: NDArray[np.int64]) -> Floats:
    """Ridge scores [len(rows), K] of an archive's clips."""
    return model.scores(clips.normal[rows], clips.sites[rows].tolist())
