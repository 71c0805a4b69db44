"""exact-ridge: a class-weighted ridge whose sums over clips are all that training needs.

Three sums, one after the other, each of whole numbers: where each site moves (registration), moments of the
147 block means with the class counts (standardisation and principal axes), and the Gram matrix of 677
features with the class sums. Between them stand public functions of the sums. So a federation that adds up
its members' sums through a secure scheme trains the very model that one computer with all clips would: no
rounds, no drift, and leaving a person out is leaving its part out of the sum.

Features phi of a standardised clip with principal coordinates z [d], d = 147: exp(-|z|^2/d) times 1, x =
z*sqrt(2/d), and the products of the first 32 of x as the Taylor series of the kernel exp(-|a-b|^2/d) has
them; and a constant. Every phi lies in [-1, 1], which bounds what one clip adds. With `mirror` a clip's phi
is the mean over the clip and its mirror image, in axes of the moments of both, which follow from the same
second sum: the ridge that learned from every clip both ways, and a score that no mirror changes.
Loss: sum of w_i |coef' phi_i - t_i|^2 + lam |coef|^2 with w_i = n/(k n_c), t = 1 for the truth and -1/2 else.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.mer.errors import InputError
from merveil.mer.exact_features import (
    FEATURES,
    FINE,
    SAME,
    Floats,
    Warp,
    Whole,
    block_means,
    find_warps,
    mirrored,
)

QUADRATIC = 32  # principal coordinates whose products are taken
WIDTH = 1 + FEATURES + QUADRATIC * (QUADRATIC + 1) // 2 + 1  # 677
STEPS = 4096  # grid steps in one unit of a weighted feature
LAMBDA = 0.3
MISS = -0.5  # target of a class that is not the truth
MOST_CLIPS = 1 << 14  # of one federation: what a member adds then fits 40 bits
FLOOR = 0.05  # least standard deviation of a block mean, in units of a clip's rms
SWITCHES = ("register", "mirror")  # options that are true or false, and true unless said
SHARPNESS = 3.0  # turns scores (targets 1 and -1/2) into probabilities
UPPER = np.triu_indices(FEATURES)
UPPER_GRAM = np.triu_indices(WIDTH)


@dataclass(frozen=True)
class Settings:
    """lam: the ridge; register: whether sites are registered; mirror: whether a clip counts with its mirror
    image; classes K; shape of an image (h, w)."""

    classes: int
    shape: tuple[int, int]
    lam: float = LAMBDA
    register: bool = True
    mirror: bool = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lam) and self.lam > 0):
            raise InputError(f"exact-ridge: lam must be a positive number, not {self.lam!r}")

    @classmethod
    def make(cls, classes: int, shape: tuple[int, ...], options: Mapping[str, Any]) -> "Settings":
        """From the options of a command line; InputError for one that there is not."""
        unknown = [name for name in options if name not in ("lam", *SWITCHES)]
        if unknown:
            raise InputError(f"exact-ridge has no option {unknown[0]!r}; it has: lam, {', '.join(SWITCHES)}")
        switches = {name: options.get(name, True) for name in SWITCHES}
        for name, value in switches.items():
            if not isinstance(value, bool):
                raise InputError(f"exact-ridge: {name} is true or false, not {value!r}")
        return cls(classes, (shape[0], shape[1]), float(options.get("lam", LAMBDA)), **switches)


def movement_sums(moves: Whole, sites: Sequence[str], names: Sequence[str]) -> Whole:
    """One party's first vector: for each site of `names` its summed movement [h*w] and its clips.

    moves: int64 [m, h*w] of `movement`, or [m, 0] where sites are not registered and only counted; sites: of
    the m clips. A party adds zeros for sites it is not on.
    """
    here = np.asarray(sites)
    mine = [moves[here == name] for name in names]
    return np.concatenate([np.append(part.sum(0, dtype=np.int64), len(part)) for part in mine])


def warps_from(total: Whole, names: Sequence[str], settings: Settings) -> dict[str, Warp]:
    """The registration that the first sum says; identities without one."""
    rows = np.asarray(total).reshape(len(names), -1)
    clips = {name: int(row[-1]) for name, row in zip(names, rows)}
    if not settings.register:
        return {name: SAME for name in names if clips[name]}
    return find_warps({name: row[:-1] / FINE for name, row in zip(names, rows)}, clips, settings.shape)


def moment_sums(features: Whole, labels: NDArray[np.int64], classes: int) -> Whole:
    """One party's second vector: sums [147], products [10,878] and clips of each class [K]."""
    products = features.T @ features
    counts = np.bincount(labels, minlength=classes).astype(np.int64)
    return np.concatenate([features.sum(0, dtype=np.int64), products[UPPER], counts])


@dataclass(frozen=True, eq=False)
class Basis:
    """What the second sum gives: mean, scale [147] of the block means, axes [147,147] in falling order, and
    the class weights [K] (0 for a class that nobody has) and counts [K]. mirror: a clip's features are the
    mean of its own and its mirror image's."""

    mean: Floats
    scale: Floats
    axes: Floats
    counts: Whole
    mirror: bool = True

    @property
    def weights(self) -> Floats:
        """n / (k n_c) over the k classes present."""
        present = max(1, int(np.count_nonzero(self.counts)))
        return np.where(self.counts > 0, self.counts.sum() / (present * np.maximum(self.counts, 1)), 0.0)

    def features(self, block: Whole) -> Floats:
        """phi, float64 [n, 677], of block means int64 [n, 147]."""
        own = self._one_way(block)
        return (own + self._one_way(mirrored(block))) / 2 if self.mirror else own

    def _one_way(self, block: Whole) -> Floats:
        z = ((block / FINE - self.mean) / self.scale) @ self.axes
        decay = np.exp(-(z**2).sum(1, keepdims=True) / FEATURES)
        x = z * math.sqrt(2 / FEATURES)
        first, second = np.triu_indices(QUADRATIC)
        products = x[:, first] * x[:, second] * np.where(first == second, math.sqrt(0.5), 1.0)
        return np.concatenate([decay, decay * x, decay * products, np.ones_like(decay)], 1)


def basis_from(total: Whole, mirror: bool = True) -> Basis:
    """The basis that the second sum says; InputError where fewer than two clips or classes are in it.

    mirror: of the moments of all clips and their mirror images, which are a function of that sum.
    """
    counts = np.asarray(total[FEATURES + len(UPPER[0]) :], np.int64)
    n = int(counts.sum())
    if n < 2 or np.count_nonzero(counts) < 2:
        raise InputError(
            f"exact-ridge: {n} clips of {np.count_nonzero(counts)} class(es) are too few to train on"
        )
    mean = total[:FEATURES] / (n * FINE)
    second = np.zeros((FEATURES, FEATURES))
    second[UPPER] = total[FEATURES : FEATURES + len(UPPER[0])] / (float(n) * FINE**2)
    second = second + np.triu(second, 1).T
    if mirror:
        mean = (mean + mirrored(mean[None])[0]) / 2
        second = (second + mirrored(mirrored(second).T).T) / 2
    spread = second - np.outer(mean, mean)
    scale = np.maximum(np.sqrt(np.maximum(np.diagonal(spread), 0)), FLOOR)
    _, axes = np.linalg.eigh(spread / np.outer(scale, scale))
    axes = axes[:, ::-1]
    largest = np.abs(axes).round(9).argmax(0)  # the first of equals, which mirrored entries are
    signs = np.sign(axes[largest, np.arange(FEATURES)])  # eigh leaves them open
    return Basis(mean, scale, axes * signs, counts, mirror)


def gram_sums(features: Floats, labels: NDArray[np.int64], basis: Basis) -> Whole:
    """One party's third vector: the weighted Gram matrix [229,503] and the class sums [677 K].

    features: phi float64 [m, 677]. sqrt(w) phi is rounded to the grid first, so all products are whole.
    """
    codes = np.rint(features * np.sqrt(basis.weights[labels])[:, None] * STEPS).astype(np.int64)
    # Whole numbers below 2^53 multiply exactly as floats, and a float product is a hundred times faster.
    gram = (codes.T.astype(np.float64) @ codes.astype(np.float64)).astype(np.int64)
    member = np.eye(len(basis.counts), dtype=np.int64)[labels]
    return np.concatenate([gram[UPPER_GRAM], (codes.T @ member).ravel()])


def coefficients(total: Whole, basis: Basis, lam: float) -> Floats:
    """The ridge's solution, float64 [677, K], from the third sum; NaN nowhere, 0 for an absent class."""
    k, split = len(basis.counts), len(UPPER_GRAM[0])
    gram = np.zeros((WIDTH, WIDTH))
    gram[UPPER_GRAM] = total[:split] / float(STEPS**2)
    gram = gram + np.triu(gram, 1).T
    gram[np.diag_indices(WIDTH)] += lam
    sums = total[split:].reshape(WIDTH, k) / STEPS * np.sqrt(basis.weights)  # sum of w phi by class
    targets = np.full((k, k), MISS)
    np.fill_diagonal(targets, 1.0)
    return np.asarray(np.linalg.solve(gram, sums @ targets))


@dataclass(frozen=True, eq=False)
class ExactModel:
    """A trained exact ridge: settings, warps by site, basis and coefficients [677, K]."""

    settings: Settings
    warps: Mapping[str, Warp]
    basis: Basis
    coefficients: Floats

    def scores(self, clips: Floats, sites: Sequence[str]) -> Floats:
        """Ridge scores [n, K] of `normalised` clips; -inf for a class without training clips.

        A site that the model does not know is read unwarped.
        """
        block = block_means(clips, sites, self.warps)
        found = self.basis.features(block) @ self.coefficients
        found[:, self.basis.counts == 0] = -np.inf
        return np.asarray(found)

    def probabilities(self, clips: Floats, sites: Sequence[str]) -> Floats:
        """Softmax of SHARPNESS times the scores, float64 [n, K]."""
        return softmax(SHARPNESS * self.scores(clips, sites))


def softmax(scores: Floats) -> Floats:
    """Over the last axis; -inf gives 0."""
    power = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(power / power.sum(-1, keepdims=True))


def bounds(clips: int) -> tuple[int, int, int]:
    """Largest magnitude of one party's entries in the three vectors when there are `clips` in all: public.

    InputError above MOST_CLIPS. |movement| is at most 4 sqrt(2) and |block mean| 4; the class weights of all
    clips sum to their number, so those of a party do not exceed it; rounding adds less than a step a factor.
    """
    if clips > MOST_CLIPS:
        raise InputError(f"exact-ridge adds up at most {MOST_CLIPS} clips exactly, not {clips}")
    return clips * 6 * FINE, clips * (4 * FINE + 1) ** 2, clips * (STEPS + 1) ** 2
