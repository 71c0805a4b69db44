"""STSTNet's training step by hand, for many models at once.

What torch's autograd does in some hundred passes over arrays too large for a cache is here, for a chunk of
models and one clip at a time: one matrix product for the convolutions of all of them, one compiled pass from
there to the loss and back, and one matrix product for the filters' gradient. Normalisation is affine and
monotone, so it is applied to the pooled maxima only (to the minima where its weight is negative), which gives
the same numbers. With BatchNorm the statistics are those of the batch, so the pass is cut in two and the
convolutions are computed again on the way back, which costs less than keeping them.

Shapes: m models, R = 16m rows, u clips, W windows of nine columns, q pooled cells, K classes.
Equality with autograd and with a plain torch module is tested in tests/mer/test_ststnet.py.
"""

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from merveil.mer.coins import Coins, keep_bits, stream
from merveil.mer.models import ststnet_passes as passes
from merveil.mer.models.stacked import Gradient

if TYPE_CHECKING:
    from merveil.mer.models.ststnet import STSTNet

CHUNK = 8  # models of one matrix product; 128 rows reach the product's full speed
LONE = 1.4  # a model trained alone costs this much more a clip than one in a chunk


@dataclass(frozen=True, eq=False)
class Task:
    """Models that share a matrix product, and the clips any of them learns from.

    place: int64 [m, u], position of the clip in the model's own row, -1 where it is not one of its clips.
    """

    models: NDArray[np.int64]
    clips: NDArray[np.int64]
    place: NDArray[np.int64]


def tasks(rows: NDArray[np.int64]) -> Iterator[Task]:
    """Chunks of models that share most of their clips: rows int64 [M,B], -1 = padding at the end.

    Models are taken in the order of their clips, so that those with equal clips meet; one joins a chunk
    while the clips that its members do not share cost less than its standing alone.
    """
    counts = (rows >= 0).sum(1)
    order = np.lexsort(np.sort(rows, 1).T[::-1])
    chunk: list[np.intp] = []
    union = np.empty(0, np.int64)
    for model in order[counts[order] > 0]:
        wider = np.union1d(union, rows[model, : counts[model]])
        if chunk and (
            len(chunk) == CHUNK
            or len(wider) * (len(chunk) + 1) > LONE * (counts[chunk].sum() + counts[model])
        ):
            yield _task(rows, np.sort(np.array(chunk)), union)
            chunk, wider = [], np.unique(rows[model, : counts[model]])
        chunk, union = [*chunk, model], wider
    if chunk:
        yield _task(rows, np.sort(np.array(chunk)), union)


def _task(rows: NDArray[np.int64], models: NDArray[np.int64], clips: NDArray[np.int64]) -> Task:
    place = np.full((len(models), len(clips)), -1)
    order = np.argsort(clips, kind="stable")
    for i, model in enumerate(models):
        mine = rows[model][rows[model] >= 0]
        place[i, order[np.searchsorted(clips[order], mine)]] = np.arange(len(mine))
    return Task(models, clips, place)


def gradients(
    net: "STSTNet",
    params: torch.Tensor,
    x: torch.Tensor,
    rows: NDArray[np.int64],
    targets: torch.Tensor,
    coins: Coins | None,
    pool: Executor | None,
) -> Gradient:
    """See StackedNet.gradients; x is prepared columns [n, 9c+1, 9W]."""
    grad = torch.zeros(len(params), net.trainable)
    loss = torch.zeros(len(params))
    buffers = params[:, net.trainable :].clone()

    def run(task: Task) -> None:
        index = torch.from_numpy(task.models)
        step = _Step(net, params[index], x, task)
        step.train(_place_targets(targets, task), _place_coins(net, coins, task))
        grad[index], loss[index] = step.flat_gradient(), step.loss
        if net.buffers:
            buffers[index] = step.running(buffers[index])

    with torch.no_grad():
        list((map if pool is None else pool.map)(run, tasks(rows)))
    return Gradient(grad, loss, buffers)


def predict(net: "STSTNet", params: torch.Tensor, x: torch.Tensor, pool: Executor | None) -> torch.Tensor:
    """Class probabilities [M,n,K] without dropout, running statistics where there are any."""
    found = torch.zeros(len(params), len(x), net.classes)
    rows = np.broadcast_to(np.arange(len(x)), (len(params), len(x)))

    def run(task: Task) -> None:
        index = torch.from_numpy(task.models)
        found[index] = torch.softmax(_Step(net, params[index], x, task).scores(), -1)

    with torch.no_grad():
        list((map if pool is None else pool.map)(run, tasks(rows)))
    return found


def _place_targets(targets: torch.Tensor, task: Task) -> torch.Tensor:
    """targets [M,B,K] by clip of the task: [m,u,K], zero where a clip is not the model's."""
    place = torch.from_numpy(task.place)
    mine = targets[torch.from_numpy(task.models)]
    found = mine.gather(1, place.clamp_min(0)[..., None].expand(-1, -1, targets.shape[2]))
    return found * (place >= 0)[..., None]


def _place_coins(net: "STSTNet", coins: Coins | None, task: Task) -> NDArray[np.uint8] | None:
    """Packed dropout coins by clip of the task: uint8 [u, m, bytes]; None: nothing is dropped."""
    if coins is None:
        return None
    count = 16 * net.windows.count
    found = np.zeros((len(task.clips), len(task.models), -(-count // 64) * 8), np.uint8)
    for i, model in enumerate(task.models):
        place = task.place[i]
        mine = np.flatnonzero(place >= 0)
        if mine.size:
            source = stream(coins.seeds[model], "dropout", coins.steps[model])
            found[mine, i] = keep_bits(source, int(place.max()) + 1, count)[place[mine]]
    return found


class _Step:
    """One chunk of models on one list of clips; numpy arrays share their memory with torch's."""

    def __init__(self, net: "STSTNet", params: torch.Tensor, x: torch.Tensor, task: Task) -> None:
        self.net, self.x, self.task = net, x, task
        self.parts = net.views(params)
        self.filters = net.filters(params).flatten(0, 1).contiguous()  # [R, 9c+1]
        self.gamma, self.beta = self._norms("weight"), self._norms("bias")  # [m,16]
        self.head = (
            np.ascontiguousarray(self.parts["fc.weight"].numpy()),
            np.ascontiguousarray(self.parts["fc.bias"].numpy()),
        )
        self.loss = torch.zeros(len(params))
        self.d_filters = torch.zeros(self.filters.shape[1], len(self.filters))
        shapes = (self.gamma.shape, self.beta.shape, self.head[0].shape, self.head[1].shape)
        self.grads = tuple(np.zeros(shape, np.float32) for shape in shapes)
        self.maps = torch.empty(len(self.filters), 9 * net.windows.count)
        self.inside = net.windows.inside.numpy()

    def _norms(self, what: str) -> NDArray[np.float32]:
        return torch.cat([self.parts[f"norm{i}.{what}"] for i in (1, 2, 3)], 1).numpy()

    def train(self, targets: torch.Tensor, packed: NDArray[np.uint8] | None) -> None:
        """Fill the gradients. targets [m,u,K]; packed: dropout coins [u,m,bytes] or None."""
        wanted = np.ascontiguousarray(targets.numpy())
        if self.net.norm == "batch":
            self._train_batch(wanted, packed)
            return
        windows, loss, maps = self.net.windows, self.loss.numpy(), self.maps.numpy()
        by_clip = np.ascontiguousarray(wanted.transpose(1, 0, 2))
        for j, clip in enumerate(self.task.clips):
            torch.mm(self.filters, self.x[clip], out=self.maps)
            passes.group_step(
                maps, self.inside, self.gamma, self.beta, *self.head, self._keep(packed, j), by_clip[j],
                windows.positions, self.net.eps, *self.grads, loss,
            )  # fmt: skip
            self.d_filters.addmm_(self.x[clip], self.maps.T)

    def _train_batch(self, targets: NDArray[np.float32], packed: NDArray[np.uint8] | None) -> None:
        seen, models = self._pool_all(packed), len(self.gamma)
        member = (self.task.place >= 0).T[..., None].astype(np.float64)  # [u,m,1]
        self.total = member.sum(0) * self.net.windows.positions  # [m,1]
        safe = np.maximum(self.total, 1)
        moments = [(a.reshape(-1, models, 16) * member).sum(0) / safe for a in (seen.sums, seen.squares)]
        self.mean, self.var = moments[0], np.maximum(moments[1] - moments[0] ** 2, 0)
        rate = 1 / np.sqrt(self.var + self.net.eps)
        up = np.empty_like(seen.best)
        statistics = (self.mean.astype(np.float32), rate.astype(np.float32))
        passes.batch_head(
            seen.best, seen.share, self.gamma, self.beta, *statistics, *self.head, targets,
            *self.grads, up, self.loss.numpy(),
        )  # fmt: skip
        d_gamma, d_beta = self.grads[:2]
        slope = rate**2 * self.gamma * d_gamma / safe  # the batch's sums are these gradients
        shift = rate * self.gamma * d_beta / safe - self.mean * slope
        slopes, shifts = ((member * a).reshape(len(up), -1).astype(np.float32) for a in (slope, shift))
        maps = self.maps.numpy()
        for j, clip in enumerate(self.task.clips):
            torch.mm(self.filters, self.x[clip], out=self.maps)
            passes.spread(maps, seen.where[j], self._keep(packed, j), up[j], shifts[j], slopes[j])
            self.d_filters.addmm_(self.x[clip], self.maps.T)

    def scores(self) -> torch.Tensor:
        """Logits [m,u,K] in evaluation: running statistics where there are any, no dropout."""
        seen, models = self._pool_all(None), len(self.gamma)
        found = np.empty((len(seen.sums), models, self.net.classes), np.float32)
        mean, rate = np.empty((models, 16), np.float32), np.empty((models, 16), np.float32)
        if self.net.norm == "batch":
            mean[:] = self._norms("running_mean")
            rate[:] = 1 / np.sqrt(self._norms("running_var") + self.net.eps)
        for j in range(len(found)):
            if self.net.norm == "group":
                for m in range(models):
                    rows = slice(16 * m, 16 * m + 16)
                    sums = (seen.sums[j, rows], seen.squares[j, rows])
                    passes.group_statistics(*sums, self.net.windows.positions, self.net.eps, mean[m], rate[m])
            pooled = (seen.best[j], seen.share[j])
            passes.batch_scores(*pooled, self.gamma, self.beta, mean, rate, *self.head, found[j])
        return torch.from_numpy(found).transpose(0, 1)

    def _pool_all(self, packed: NDArray[np.uint8] | None) -> "Seen":
        """Convolve and pool every clip."""
        rows, windows = len(self.filters), self.net.windows
        seen = Seen.empty(len(self.task.clips), rows, windows.cells, windows.count)
        maps, gamma = self.maps.numpy(), self.gamma.ravel()
        for j, clip in enumerate(self.task.clips):
            torch.mm(self.filters, self.x[clip], out=self.maps)
            out = (seen.sums[j], seen.squares[j], seen.best[j], seen.share[j], seen.where[j])
            passes.pool(maps, self.inside, gamma, self._keep(packed, j), *out)
        return seen

    def _keep(self, packed: NDArray[np.uint8] | None, j: int) -> NDArray[np.uint8]:
        """Dropout factors of the j-th clip, 0 or 2, or 1 where nothing is dropped: uint8 [R,W]."""
        windows = self.net.windows.count
        if packed is None:
            return np.ones((len(self.filters), windows), np.uint8)
        bits = np.unpackbits(packed[j], axis=-1, count=16 * windows, bitorder="little")
        return (bits << 1).reshape(-1, windows)

    def flat_gradient(self) -> torch.Tensor:
        """[m, trainable] in the order of the layout."""
        d_gamma, d_beta, d_weight, d_bias = (torch.from_numpy(g) for g in self.grads)
        filters = self.d_filters.T.reshape(len(d_gamma), 16, -1)
        parts = []
        for low, high in passes.ENDS:
            rows = slice(low, high)
            parts += [filters[:, rows, :-1].flatten(1), filters[:, rows, -1]]
            parts += [d_gamma[:, rows], d_beta[:, rows]]
        return torch.cat([*parts, d_weight.flatten(1), d_bias], 1)

    def running(self, before: torch.Tensor) -> torch.Tensor:
        """Running statistics after this batch, as torch keeps them: [m,32]; a model without clips stays."""
        unbiased = self.var * self.total / np.maximum(self.total - 1, 1)
        now = [a[:, low:high] for low, high in passes.ENDS for a in (self.mean, unbiased)]
        moved = torch.lerp(before, torch.from_numpy(np.concatenate(now, 1)).float(), self.net.momentum)
        return torch.where(torch.from_numpy(self.total > 0), moved, before)


@dataclass(frozen=True, eq=False)
class Seen:
    """What pooling leaves of some clips; see `ststnet_passes.pool`."""

    sums: NDArray[np.float32]  # [u, R]
    squares: NDArray[np.float32]
    best: NDArray[np.float32]  # [u, R, q]
    share: NDArray[np.float32]
    where: NDArray[np.uint8]  # [u, R, W]

    @classmethod
    def empty(cls, clips: int, rows: int, cells: int, windows: int) -> "Seen":
        """Room for that many clips."""
        flat, pooled = (clips, rows), (clips, rows, cells)
        shapes = (flat, flat, pooled, pooled)
        return cls(*(np.empty(s, np.float32) for s in shapes), np.empty((clips, rows, windows), np.uint8))
