"""Training a stack of models, each on its own clips, from its own coins.

A model's result depends on its parameters, clips, seed and settings, and not on the other models of the
stack beyond float rounding. Nothing here ever sees a clip or label that it should not learn from: the caller
passes training clips only, and there is no evaluation, early stop or choice of epoch in this module.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from merveil.mer.coins import Coins, generator
from merveil.mer.cores import cores
from merveil.mer.errors import InputError
from merveil.mer.models.stacked import Floats, StackedNet
from merveil.mer.optim import OptimiserState
from merveil.mer.recipe import SCHEDULES

if TYPE_CHECKING:
    from merveil.mer.data.archive import Archive

Progress = Callable[[int, int], None]  # (steps done, steps in all)


def set_threads(count: int = 1) -> None:
    """Threads of one torch operation. Two on these tiny networks ran up to ten times slower than one."""
    torch.set_num_threads(count)


def workers() -> int:
    """Threads over chunks of models: the processors of this process, at most OMP_NUM_THREADS if set."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores(), int(limit)) if limit.isdigit() else cores())


@contextmanager
def crew(threads: int | None = None) -> Iterator[Executor | None]:
    """The threads that share a stack's chunks of models; None where one is enough. Default: `workers()`."""
    count = threads or workers()
    if count == 1:
        yield None
        return
    with ThreadPoolExecutor(count) as team:
        yield team


def train_stack(
    net: StackedNet,
    params: Floats,
    x: Floats | torch.Tensor,
    y: NDArray[np.int64],
    *,
    steps: int | Sequence[int],
    lr: float,
    seeds: Sequence[int],
    rows: NDArray[np.int64] | None = None,
    optimiser: str = "adam",
    state: OptimiserState | None = None,
    batch: int | None = None,
    shuffle: bool = True,
    class_weight: NDArray[np.floating] | None = None,
    label_smoothing: float = 0.0,
    weight_decay: float = 0.0,
    schedule: str = "constant",
    prox_mu: float = 0.0,
    anchor: Floats | None = None,
    drift: Floats | None = None,
    ema: float = 0.0,
    average: Floats | None = None,
    sam: float = 0.0,
    versions: int = 0,
    apex_jitter: float = 0.0,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Floats:
    """Take `steps` optimiser steps with each of M models; returns new params float32 [M, size].

    params: float32 [M, size], left as they are.
    x, y: either one set of clips shared by all, x [n,...] and y [n], with rows int64 [M,B] saying which of
      them each model learns from (-1 = padding, at the end of a row); or one batch a model, x [M,B,...] and
      y [M,B] with -1 on padding, and rows None. Prefer the first: it copies no clip. x is `net.prepare`d.
    steps: optimiser steps, one number or one a model; a model without clips, or with 0 steps, stays.
    seeds: one a model; order and dropout come from (seed, step), nothing else.
    state: moments and step counts, carried on in place from where they are; fresh if None. The schedule
      "cosine" runs over the steps of this call.
    batch: clips a step (None: all); the last batch of an epoch is what is left over, as torch's DataLoader.
    class_weight: [M,K] or None; the loss is the weighted mean of torch's CrossEntropyLoss.
    drift: added to every gradient, [M,trainable] (SCAFFOLD's correction).
    ema, average: the running average of the weights, float32 [M,size], updated in place from where it is:
      average <- ema * average + (1 - ema) * weights at each step; `averaged` undoes its start at zero.
    sam: the gradient is taken at the end of a step of that length up the gradient (same coins; running
      statistics are those of the first pass).
    versions, apex_jitter: x as `prepared` makes it, that many further images of each clip after the clips;
      at each step one of them, all alike, stands for its clip with this chance. Labels and weights stay.
    prox_mu, anchor: FedProx, adds mu/2 * |parameters - anchor|^2 (Li et al. 2020); anchor [M,size].
    Raises InputError for shapes or settings that do not fit.
    """
    set_threads(1)
    pool, labels, rows = _shared_form(net, params, x, y, rows, seeds, versions)
    shown = _Shown(apex_jitter, versions, len(labels))
    if schedule not in SCHEDULES:
        raise InputError(f"there is no schedule {schedule!r}; there are: {', '.join(SCHEDULES)}")
    if prox_mu and anchor is None:
        raise InputError("prox_mu needs the anchor that the models are held near")
    if ema and average is None:
        raise InputError("ema needs the average that it updates")
    if sam and net.members > 1:
        raise InputError("sam takes a step of one length for all members together: use it without members")
    values = torch.from_numpy(np.array(params, np.float32))
    own = values[:, : net.trainable]
    state = state or OptimiserState.fresh(optimiser, len(params), net.trainable)
    counts = (rows >= 0).sum(1)
    budget = np.where(counts > 0, np.broadcast_to(steps, (len(params),)), 0).astype(np.int64)
    weights = np.ones((len(params), net.classes)) if class_weight is None else np.asarray(class_weight)
    centre = None if anchor is None else torch.from_numpy(np.array(anchor[:, : net.trainable], np.float32))
    order = _Order(rows, counts, seeds, batch, shuffle)
    total = int(budget.max(initial=0))
    with crew(threads) as team:
        for step in range(total):
            chosen = order.at(state.steps, step < budget)
            targets = _targets(labels, chosen, weights, label_smoothing)
            coins = Coins(seeds, state.steps.tolist())
            chosen = shown.at(chosen, coins)
            found = net.gradients(values, pool, chosen, targets, coins, team)
            grad = found.value
            if sam:
                raised = _raised(values, grad, sam)
                grad = net.gradients(raised, pool, chosen, targets, coins, team).value
            if prox_mu and centre is not None:
                grad = grad.add(own - centre, alpha=prox_mu)
            if drift is not None:
                grad = grad.add(torch.from_numpy(drift))
            decay = _factor(schedule, step, budget)
            state.step(own, grad, np.where(step < budget, lr * decay, 0.0), weight_decay)
            live = torch.from_numpy(step < budget)[:, None]
            values[:, net.trainable :] = torch.where(live, found.buffers, values[:, net.trainable :])
            if ema and average is not None:
                moving = step < budget
                average[moving] = ema * average[moving] + (1 - ema) * values.numpy()[moving]
            if progress is not None:
                progress(step + 1, total)
    return values.numpy()


def _raised(values: torch.Tensor, grad: torch.Tensor, length: float) -> torch.Tensor:
    """values [M,size] with each model's parameters moved by `length` along its gradient [M,trainable]."""
    norm = grad.norm(dim=1, keepdim=True).clamp_min(1e-12)
    out = values.clone()
    out[:, : grad.shape[1]] += length * grad / norm
    return out


def prepared(net: StackedNet, archive: "Archive", apex_jitter: float) -> tuple[Floats, int]:
    """The clips, `net.prepare`d [n,...], with apex_jitter followed by their images near the apex.

    Second: how many such images a clip has after the clips, 0 where the chance is 0; version v of clip i is
    at n + i * versions + v. InputError where they are wanted and the archive has none.
    """
    archive.check_near(apex_jitter)
    if not apex_jitter or archive.near is None:
        return net.prepare(archive.x), 0
    near = archive.near.reshape(-1, *archive.x.shape[1:])
    return net.prepare(np.concatenate([archive.x, near])), archive.near.shape[1]


def averaged(average: Floats, ema: float, steps: NDArray[np.int64]) -> Floats:
    """The running averages [M,size] after `steps` [M] >= 1, freed of their start at zero."""
    return np.asarray(average / (1 - ema ** np.maximum(steps, 1))[:, None], np.float32)


def with_prior(net: StackedNet, params: Floats, shares: NDArray[np.floating], tau: float) -> Floats:
    """params [M,size] with tau * log(shares [M,K]) added to the biases of the classes; 0 for an absent class.

    Adding tau * log(prior) to the training scores is training from shifted biases; shift back (-tau) before
    predicting. Decoupled decay of the shift is the one difference from adding a constant to the scores.
    """
    log = np.log(np.where(shares > 0, shares, 1.0))
    out = np.array(params)
    out[:, net.class_biases()] += np.tile(tau * log, net.members).astype(params.dtype)
    return out


def predict_stack(
    net: StackedNet, params: Floats, x: Floats | torch.Tensor, threads: int | None = None
) -> NDArray[np.float64]:
    """Class probabilities float64 [M,n,K] of params [M,size] on prepared clips x [n,...]."""
    set_threads(1)
    with crew(threads) as team:
        found = net.predict(torch.from_numpy(np.array(params, np.float32)), torch.as_tensor(x), team)
    return found.numpy().astype(np.float64)


def balanced_weights(labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """n / (k * n_c) for the k classes present, 0 for an absent one: float64 [classes]."""
    counts = np.bincount(labels, minlength=classes)
    present = np.count_nonzero(counts)
    return np.where(counts > 0, len(labels) / (max(present, 1) * np.maximum(counts, 1)), 0.0)


def _shared_form(
    net: StackedNet,
    params: Floats,
    x: Floats | torch.Tensor,
    y: NDArray[np.int64],
    rows: NDArray[np.int64] | None,
    seeds: Sequence[int],
    versions: int,
) -> tuple[torch.Tensor, NDArray[np.int64], NDArray[np.int64]]:
    """Both forms of input as (x [n,...], y [n], rows [M,B]), checked."""
    if params.ndim != 2 or params.shape[1] != net.size:
        raise InputError(f"{net.name} models are vectors of {net.size}, not {params.shape}")
    if len(seeds) != len(params):
        raise InputError(f"{len(params)} models need as many seeds, not {len(seeds)}")
    pool, labels = torch.as_tensor(x), np.asarray(y)
    if rows is None:
        if labels.ndim != 2 or pool.shape[:2] != labels.shape or len(labels) != len(params):
            raise InputError("without rows, x is [models, clips, ...] and y is [models, clips]")
        index = np.arange(labels.size).reshape(labels.shape)
        rows = np.where(labels >= 0, index, -1)
        pool, labels = pool.flatten(0, 1), labels.ravel()
    rows = np.asarray(rows, np.int64)
    if len(pool) != len(labels) * (1 + versions) or len(rows) != len(params):
        raise InputError("x and y differ in clips, or rows and params in models")
    if (np.diff((rows >= 0).astype(np.int8), axis=1) > 0).any():
        raise InputError("padding stands at the end of a model's clips")
    used = labels[rows[rows >= 0]]
    if used.size and (used.min() < 0 or used.max() >= net.classes):
        raise InputError(f"labels lie in 0..{net.classes - 1}")
    return pool, labels, rows


class _Order:
    """Which clips each model sees at its next step: a function of its seed and step count."""

    def __init__(
        self,
        rows: NDArray[np.int64],
        counts: NDArray[np.int64],
        seeds: Sequence[int],
        batch: int | None,
        shuffle: bool,
    ) -> None:
        self.rows, self.counts, self.seeds = rows, counts, seeds
        self.batch, self.shuffle = batch, shuffle
        self.epochs: dict[int, tuple[int, NDArray[np.int64]]] = {}

    def at(self, steps: NDArray[np.int64], live: NDArray[np.bool_]) -> NDArray[np.int64]:
        """int64 [M, <=batch], -1 = padding; a model that is not live has padding only."""
        if self.batch is None:
            return np.where(live[:, None], self.rows, -1)
        chosen = np.full((len(self.rows), min(self.batch, self.rows.shape[1])), -1)
        for i in np.flatnonzero(live & (self.counts > 0)):
            epoch, part = divmod(int(steps[i]), -(-int(self.counts[i]) // self.batch))
            picked = self._epoch(i, epoch)[part * self.batch : (part + 1) * self.batch]
            chosen[i, : picked.size] = picked
        return chosen

    def _epoch(self, i: int, epoch: int) -> NDArray[np.int64]:
        mine = self.rows[i, : self.counts[i]]
        if not self.shuffle:
            return mine
        if i not in self.epochs or self.epochs[i][0] != epoch:
            order = generator(self.seeds[i], "order", epoch).permutation(mine.size)
            self.epochs[i] = (epoch, mine[order])
        return self.epochs[i][1]


class _Shown:
    """Which image stands for a clip at a step: its own, or one of a frame near its apex."""

    def __init__(self, share: float, versions: int, clips: int) -> None:
        if not 0 <= share <= 1:
            raise InputError(f"apex_jitter is a chance in 0..1, not {share}")
        if share and versions < 1:
            raise InputError("apex_jitter needs versions of each clip after the clips: see prepared")
        self.share, self.versions, self.clips = share, versions, clips

    def at(self, rows: NDArray[np.int64], coins: Coins) -> NDArray[np.int64]:
        """rows int64 [M,B] of clips as positions of the images shown; padding stays padding."""
        if not self.share:
            return rows
        drawn = coins.uniform("apex", rows.shape[1], 2)
        other = self.clips + rows * self.versions + (drawn[..., 1] * self.versions).astype(np.int64)
        return np.where((rows >= 0) & (drawn[..., 0] < self.share), other, rows)


def _targets(
    labels: NDArray[np.int64], rows: NDArray[np.int64], weights: NDArray[np.floating], smoothing: float
) -> torch.Tensor:
    """float32 [M,B,K]: what -log p of each class weighs, so that the sum is torch's weighted mean loss."""
    real = rows >= 0
    truth = np.where(real, labels[np.maximum(rows, 0)], 0)
    classes = weights.shape[1]
    spread = np.full((*rows.shape, classes), smoothing / classes)
    np.put_along_axis(spread, truth[..., None], 1 - smoothing + smoothing / classes, -1)
    total = np.where(real, np.take_along_axis(weights, truth, 1), 0).sum(1)
    scaled = spread * weights[:, None] * real[..., None] / np.where(total > 0, total, 1)[:, None, None]
    return torch.from_numpy(scaled.astype(np.float32))


def _factor(schedule: str, step: int, budget: NDArray[np.int64]) -> NDArray[np.float64]:
    """The schedule's share of the rate at this step, for each model."""
    if schedule == "constant":
        return np.ones(len(budget))
    return 0.5 * (1 + np.cos(np.pi * np.minimum(step / np.maximum(budget, 1), 1)))
