"""The two baselines of every table: the majority class, and kernel ridge on raw pixels.

Both are fitted per fold on the training persons only; nothing of a test clip but its own pixels is used.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from merveil.mer.data.archive import Archive
from merveil.mer.data.splits import Fold

Floats = NDArray[np.float64]
SHARPNESS = 4.0  # turns ridge scores (targets 0 and 1) into probabilities: a sure clip gets .96


def majority_predictions(archive: Archive, folds: Sequence[Fold]) -> Floats:
    """Probabilities [n, K]: the class shares of each clip's training part (ties: lowest label)."""
    k = len(archive.classes)
    out = np.full((archive.n, k), np.nan)
    for fold in folds:
        out[fold.test] = np.bincount(archive.y[fold.train], minlength=k) / len(fold.train)
    return out


def kernel_ridge_predictions(
    archive: Archive, folds: Sequence[Fold], lam: float = 0.3, gamma: float | None = None
) -> Floats:
    """Probabilities [n, K] of class-weighted RBF kernel ridge on standardised pixels.

    Per fold: features standardised by the training part (constant ones dropped), kernel exp(-gamma |a-b|^2)
    with gamma 1/d by default, class weights n / (K n_c) over the classes present, one-hot targets; solves
    (K + lam W^-1) A = Y by one factorisation a fold. The probabilities order the classes as the ridge
    scores do and are not calibrated; a class that no training clip has gets 0.
    """
    x = archive.x.reshape(archive.n, -1).astype(np.float64)
    out = np.full((archive.n, len(archive.classes)), np.nan)
    for fold in folds:
        scores = _ridge_scores(x[fold.train], archive.y[fold.train], x[fold.test], out.shape[1], lam, gamma)
        out[fold.test] = _softmax(SHARPNESS * scores)
    return out


def _ridge_scores(
    train: Floats, labels: NDArray[np.int64], test: Floats, k: int, lam: float, gamma: float | None
) -> Floats:
    """Scores [test, k]; -inf for a class that is not in `labels`."""
    mean, sd = train.mean(axis=0), train.std(axis=0)
    scale = np.divide(1.0, sd, out=np.zeros_like(sd), where=sd > 1e-12 * np.abs(mean))
    a, b = (train - mean) * scale, (test - mean) * scale
    width = 1 / train.shape[1] if gamma is None else gamma
    counts = np.bincount(labels, minlength=k)
    weight = len(labels) / (np.count_nonzero(counts) * counts[labels])
    gram = _rbf(a, a, width)
    gram[np.diag_indices_from(gram)] += lam / weight
    scores = _rbf(b, a, width) @ np.linalg.solve(gram, np.eye(k)[labels])
    scores[:, counts == 0] = -np.inf
    return scores


def _rbf(a: Floats, b: Floats, gamma: float) -> Floats:
    square = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * (a @ b.T)
    return np.exp(-gamma * np.maximum(square, 0))


def _softmax(scores: Floats) -> Floats:
    power = np.exp(scores - scores.max(axis=1, keepdims=True))
    return power / power.sum(axis=1, keepdims=True)
