"""What the three sums of `exact-ridge` tell: class counts, who took part, and a lone clip, for any scheme.

The third sum is G = C'C, where row i of C is clip i's weighted features in whole grid steps. The sums before
it let anybody compute the row c of a candidate clip to the last digit. Span: below 677 clips (about 355 where
clips count with their mirror images, which leaves fewer independent features) the row space of G is the span
of its rows; a clip that took part lies inside, another one does not, as rounding alone puts it out. Leverage:
if c is a row of C then G - cc' is positive semidefinite, so c'G^-1 c <= 1, with any number of clips; and as
c adds itself to G, g of a clip outside is g / (1 + g) once it took part. So the span's end is not the end of
what the sum tells. No scheme hides this: it is in the sum.
Sources: the span test of Petrov et al., NeurIPS 2024 (DAGER), on a Gram matrix in place of gradients; the
rank-one update of Sherman and Morrison, 1950.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from merveil.attacks.base import Public
from merveil.mer.exact import STEPS, UPPER_GRAM, WIDTH, Basis, Settings, basis_from, warps_from
from merveil.mer.exact_features import block_means, normalised

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

NULL = 0.5  # squared grid steps: eigenvalues below it are the rounding of the decomposition
INSIDE = 1.0  # squared grid steps of a row outside the span that still count as inside
MOST = 1.001  # leverage of a row of the sum is at most 1; the rest is the rounding of the decomposition


@dataclass(frozen=True, eq=False)
class Span:
    """Row space of the third sum. axes: float64 [677, rank], orthonormal; size: eigenvalues [rank]; width:
    columns in which any clip has something (with `mirror`, those whose sign a mirror changes are empty)."""

    axes: Floats
    size: Floats
    width: int

    @property
    def full(self) -> bool:
        """Whether every row lies inside, so that only leverage tells clips apart."""
        return self.axes.shape[1] >= self.width

    def outside(self, rows: Floats) -> Floats:
        """Squared length of what lies outside, in squared grid steps: rows [m, 677] -> [m]."""
        return np.asarray(((rows - (rows @ self.axes) @ self.axes.T) ** 2).sum(1))

    def leverage(self, rows: Floats) -> Floats:
        """c'G^+ c of what lies inside: rows [m, 677] -> [m]; at most 1 for a row that the sum holds."""
        return np.asarray((((rows @ self.axes) ** 2) / self.size).sum(1))


def span_of(third: Whole) -> Span:
    """The row space that the third sum [229,503 + 677 K] shows."""
    gram = np.zeros((WIDTH, WIDTH))
    gram[UPPER_GRAM] = third[: len(UPPER_GRAM[0])]
    values, axes = np.linalg.eigh(gram + np.triu(gram, 1).T)
    keep = values > max(NULL, values[-1] * WIDTH * np.finfo(float).eps)
    return Span(axes[:, keep], values[keep], int(np.count_nonzero(np.diagonal(gram))))


def candidates(first: Whole, second: Whole, public: Public) -> tuple[Whole, Basis]:
    """Block means [m, 147] of the challenge records, as a member would take them after the first two sums,
    and the basis that these say. ValueError without challenge records."""
    if public.challenge_x is None or public.challenge_site is None:
        raise ValueError("a membership attack needs challenge records with their sites")
    settings = Settings(len(public.classes), (public.shape[0], public.shape[1]))
    warps = warps_from(first, public.sites, settings)
    clips = normalised(public.challenge_x)
    basis = basis_from(second, settings.mirror)
    return block_means(clips, public.challenge_site.tolist(), warps), basis


def candidate_rows(block: Whole, label: int, basis: Basis) -> Floats:
    """The rows that clips of these block means [m, 147] would add with this label: whole numbers [m, 677]."""
    return np.asarray(np.rint(basis.features(block) * np.sqrt(basis.weights[label]) * STEPS))


def distances(block: Whole, span: Span, basis: Basis) -> Floats:
    """How far a clip is from being in the sum, by the label that fits best: [m], over its squared length.

    Outside the span, its squared length there; to that its leverage, which alone tells once the span is full.
    """
    found = []
    for label in np.flatnonzero(basis.weights > 0):
        rows = candidate_rows(block, int(label), basis)
        found.append((span.outside(rows) / NULL + span.leverage(rows)) / (rows**2).sum(1))
    return np.asarray(np.min(found, 0))


def took_part(block: Whole, span: Span, basis: Basis) -> NDArray[np.bool_]:
    """Whether the sum can hold a clip under some label; [m]. False is certain: that clip took no part."""
    inside = []
    for label in np.flatnonzero(basis.weights > 0):
        rows = candidate_rows(block, int(label), basis)
        inside.append((span.outside(rows) < INSIDE) & (span.leverage(rows) <= MOST))
    return np.asarray(np.any(inside, 0))


def lone_clip(second: Whole, features: int = 147) -> Whole:
    """Block means [147] of the only clip in the second sum: the sum of one clip is that clip."""
    return np.asarray(second[:features])
