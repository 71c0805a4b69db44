"""Personalisation of networks: the last layer, held near the shared one, learns from K own clips.

For own clips with labels it minimises mean cross-entropy + (mu/2) |head - shared head|^2. The scores are
those that the network gives when it is asked, and everything before the last layer stays. mu is `lam` times
the mean squared length of the head's inputs (with 1 for the bias), so that it does not depend on a network's
scale. Source: the objective of Ditto (Li, Hu, Beirami, Smith, ICML 2021), on the last layer alone.

The scores are affine in the last layer, so the minimum lies in the span of the own clips' gradients
(representer theorem) and is found there: K * classes unknowns, whatever the network, by Newton's method on a
strictly convex function. No rate, no number of steps, no chance.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from merveil.mer.errors import InputError
from merveil.mer.exact import softmax
from merveil.mer.personal import Asked, Floats, Index, Personal, gathered

if TYPE_CHECKING:
    from merveil.mer.data.archive import Archive
    from merveil.mer.data.splits import Fold
    from merveil.mer.models.stacked import StackedNet

LAM = 0.1  # see docs/evaluation.md for how it was chosen
STEPS, NEAR = 100, 1e-10  # Newton steps at most; largest entry of the gradient that counts as zero


def personalised_network(
    archive: "Archive",
    folds: Sequence["Fold"],
    net: "StackedNet",
    params: NDArray[np.float32],
    k: int,
    *,
    lam: float = LAM,
) -> Personal:
    """Predict the clips of everybody who has more than k, without and with k own ones.

    params: float32 [folds, size], the models of the folds. A class without training clips is answered only
    where an own clip shows it. Raises InputError as `merveil.mer.personal.gathered`, for a lam that is not
    positive, or a network that does not end in weights and biases of the classes.
    """
    if not lam > 0 or not np.isfinite(lam):
        raise InputError(f"personalisation: lam must be a positive number, not {lam!r}")
    how = {"method": "last layer near the shared one (Ditto)", "lam": lam}
    return gathered(archive, folds, k, _heads(archive, folds, net, params, lam), how)


def head(net: "StackedNet") -> Index:
    """Positions in a model's vector of the last layer's weights and biases, of every member."""
    ends, found = dict[int, int](), []
    start = 0
    for _, shape in net.layout:
        stop = start + int(np.prod(shape))
        if len(shape) == 2 and shape[0] == net.classes:
            ends[stop] = start
        start = stop
    for biases in net.class_biases().reshape(-1, net.classes):
        if int(biases[0]) not in ends:
            raise InputError(f"{net.name} does not end in weights and biases of the classes")
        found.append(np.arange(ends[int(biases[0])], biases[-1] + 1))
    return np.concatenate(found)


def _heads(
    archive: "Archive",
    folds: Sequence["Fold"],
    net: "StackedNet",
    params: NDArray[np.float32],
    lam: float,
) -> Iterator[Asked]:
    where = head(net)
    for fold, model in zip(folds, params, strict=True):
        trained = np.isin(np.arange(net.classes), archive.y[fold.train])
        yield partial(_asked, archive, net, model, where, trained, lam)


def _asked(
    archive: "Archive",
    net: "StackedNet",
    model: NDArray[np.float32],
    where: Index,
    trained: NDArray[np.bool_],
    lam: float,
    asked: Index,
    seen: Index,
) -> tuple[Floats, Floats]:
    scores, slopes = scores_and_slopes(net, model, net.prepare(archive.x[asked]), where)
    place = {int(row): i for i, row in enumerate(asked)}
    after = np.empty_like(scores)
    for i, mine in enumerate(seen):
        own = np.array([place[int(row)] for row in mine])
        after[i] = scores[i] + slopes[i] @ fitted(scores[own], slopes[own], archive.y[mine], lam)
        after[i, ~(trained | np.isin(np.arange(net.classes), archive.y[mine]))] = -np.inf
    before = np.where(trained, scores, -np.inf)
    return softmax(before), softmax(after)


def scores_and_slopes(
    net: "StackedNet", model: NDArray[np.float32], x: NDArray[np.float32], where: Index
) -> tuple[Floats, Floats]:
    """Scores [n, K] of prepared clips and their derivatives [n, K, len(where)] by the last layer."""
    import torch

    place, values = torch.from_numpy(where), torch.from_numpy(np.array(model, np.float32)[None])
    leaf = values[:, place].clone().requires_grad_()
    scores = net.logits(values.index_copy(1, place, leaf), torch.from_numpy(x), train=False)[0]
    slopes = np.empty((*scores.shape, len(where)))
    for i, row in enumerate(scores):
        for c, one in enumerate(row):
            (slope,) = torch.autograd.grad(one, leaf, retain_graph=True)
            slopes[i, c] = slope[0].double().numpy()
    return scores.detach().double().numpy(), slopes


def fitted(scores: Floats, slopes: Floats, labels: NDArray[np.int64], lam: float) -> Floats:
    """What the last layer moves by, [p], for own clips with these scores [k, K] and slopes [k, K, p]."""
    k, classes = scores.shape
    flat = slopes.reshape(k * classes, -1)
    gram = flat @ flat.T
    mu = lam * float(np.trace(gram)) / (k * classes)
    truth = np.eye(classes)[labels]
    alpha = np.zeros(k * classes)
    value = _loss(alpha, scores, gram, truth, mu)
    for _ in range(STEPS):
        p = softmax(scores + (gram @ alpha).reshape(k, classes))
        slope = ((p - truth) / k).ravel() + mu * alpha  # the gradient is gram @ slope
        if np.abs(slope).max() < NEAR:
            break
        curve = np.zeros((k, classes, k, classes))
        for i in range(k):
            curve[i, :, i, :] = (np.diag(p[i]) - np.outer(p[i], p[i])) / k
        step = np.linalg.solve(curve.reshape(k * classes, -1) @ gram + mu * np.eye(k * classes), slope)
        size, fall = 1.0, float(slope @ gram @ step)
        while (lower := _loss(alpha - size * step, scores, gram, truth, mu)) > value - 1e-4 * size * fall:
            size /= 2
            if size < 1e-8:
                return np.asarray(flat.T @ alpha)  # the rest is rounding
        alpha, value = alpha - size * step, lower
    return np.asarray(flat.T @ alpha)


def _loss(alpha: Floats, scores: Floats, gram: Floats, truth: Floats, mu: float) -> float:
    moved = gram @ alpha
    found = scores + moved.reshape(scores.shape)
    top = found.max(1, keepdims=True)
    log = found - top - np.log(np.exp(found - top).sum(1, keepdims=True))
    return float(-(truth * log).sum() / len(scores) + mu / 2 * alpha @ moved)
