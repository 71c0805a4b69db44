"""STSTNet's training step by hand: dense work in matrix products and passes that stay in the cache.

What torch's autograd does in some forty passes over [clips, 16, 900] arrays is here, for a chunk of models:
one matrix product for the convolutions of all of them, ReLU in place, two sums (normalisation), one maximum
with its place (pooling); the head on arrays a fortieth of that size; three passes for the gradient that
normalisation spreads over every output, one scatter for the gradient that pooling sends to single outputs,
and one matrix product for the filters. Normalisation is affine and monotone, so it is applied to the pooled
maxima only (to the minima where its weight is negative), which gives the same numbers.

Shapes: m models, R = 16m rows, u clips, W windows, N columns (see `Windows`), q pooled cells, K classes.
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
from merveil.mer.models.stacked import Gradient

if TYPE_CHECKING:
    from merveil.mer.models.ststnet import STSTNet

CHUNK = 8  # models of one matrix product; 128 rows reach the product's full speed
ROWS = 128  # rows of one pass: 128*1000 floats leave half of a 1 MB second-level cache free
BLOCK = 512  # rows between two visits of the head, whose small operations cost their launch
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
    """Chunks of models that share most clips; a model whose clips are its own stands alone."""
    for start in range(0, len(rows), CHUNK):
        models = np.arange(start, min(start + CHUNK, len(rows)))
        counts = (rows[models] >= 0).sum(1)
        union = np.unique(rows[models][rows[models] >= 0])
        if len(union) * len(models) <= LONE * counts.sum():
            yield _task(rows, models, union)
            continue
        for model, count in zip(models, counts):
            if count:
                yield _task(rows, np.array([model]), rows[model, :count])


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
    """See StackedNet.gradients; x is prepared columns [n, 9c+1, N]."""
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
    """One chunk of models on one list of clips: forward, head, backward."""

    def __init__(self, net: "STSTNet", params: torch.Tensor, x: torch.Tensor, task: Task) -> None:
        self.net, self.x, self.task = net, x, task
        self.m, self.u = len(task.models), len(task.clips)
        self.parts = net.views(params)
        self.filters = net.filters(params).flatten(0, 1).contiguous()  # [R, 9c+1]
        self.gamma = torch.cat([self.parts[f"norm{i}.weight"] for i in (1, 2, 3)], 1)  # [m,16]
        self.beta = torch.cat([self.parts[f"norm{i}.bias"] for i in (1, 2, 3)], 1)
        self.member = torch.from_numpy((task.place >= 0).T.astype(np.float32))[..., None]  # [u,m,1]
        self.streams = torch.zeros(16, 3)  # which filter belongs to which stream
        self.streams[:3, 0] = self.streams[3:8, 1] = self.streams[8:, 2] = 1
        self.weight = self.parts["fc.weight"]
        self.loss = torch.zeros(self.m)
        self.d_filters = torch.zeros(self.filters.shape[1], self.filters.shape[0])
        self.d_gamma, self.d_beta = torch.zeros(self.m, 16), torch.zeros(self.m, 16)
        self.d_weight, self.d_bias = torch.zeros_like(self.weight), torch.zeros_like(self.parts["fc.bias"])
        rows = self.filters.shape[0]
        self.part = max(1, ROWS // rows)  # clips of one pass
        self.block = max(self.part, BLOCK // rows // self.part * self.part)
        self.maps = torch.empty(min(self.block, self.u), rows, net.windows.columns_count)
        self.spread = torch.empty(min(self.part, self.u), rows, net.windows.columns_count)

    def train(self, targets: torch.Tensor, packed: NDArray[np.uint8] | None) -> None:
        """Fill the gradients. targets [m,u,K]; packed: dropout coins [u,m,bytes] or None."""
        blocks = [slice(s, min(s + self.block, self.u)) for s in range(0, self.u, self.block)]
        if self.net.norm == "group":
            for block in blocks:
                keep = self._keep(packed, block)
                sums, squares, best, where = self._dense(block)
                mean, spread = self._group_statistics(sums, squares)
                pooled = self._pooled(best, keep)
                up, shift, slope = self._head(targets[:, block], pooled, mean, spread, block)
                self._descend(block, keep, up, shift, slope, where)
            return
        found = [self._dense_pooled(block, self._keep(packed, block)) for block in blocks]
        sums, squares, best, share = (torch.cat([f[i] for f in found]) for i in range(4))
        mean, spread = self._batch_statistics(sums, squares)
        up, shift, slope = self._head(targets, (best, share), mean, spread, slice(0, self.u))
        for block, (*_, where) in zip(blocks, found):
            self._convolve(block)
            keep = self._keep(packed, block)
            self._descend(block, keep, up[block], shift[block], slope[block], where.long())

    def scores(self) -> torch.Tensor:
        """Logits [m,u,K] in evaluation."""
        found = []
        for start in range(0, self.u, self.block):
            block = slice(start, min(start + self.block, self.u))
            sums, squares, best, _ = self._dense(block)
            if self.net.norm == "group":
                mean, spread = self._group_statistics(sums, squares)
            else:
                mean = torch.cat([self.parts[f"norm{i}.running_mean"] for i in (1, 2, 3)], 1)[None]
                var = torch.cat([self.parts[f"norm{i}.running_var"] for i in (1, 2, 3)], 1)[None]
                spread = torch.rsqrt(var + self.net.eps)
            found.append(self._features(self._pooled(best, None), mean, spread)[1])
        return torch.cat(found, 1)

    # Dense work: [clips, R, N].

    def _convolve(self, block: slice) -> torch.Tensor:
        """ReLU of the convolutions of a block's clips: [clips, R, N], a view of the work space."""
        clips = self.task.clips[block]
        maps = self.maps[: len(clips)]
        for j, clip in enumerate(clips):
            torch.mm(self.filters, self.x[clip], out=maps[j])
        return maps.relu_()

    def _dense(self, block: slice) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sums and sums of squares [clips,m,16], pooled outputs and which of nine they are [clips,m,16,W]."""
        clips, rows, count = self.task.clips[block], self.filters.shape[0], self.net.windows.count
        sums, norms = torch.empty(len(clips), rows), torch.empty(len(clips), rows)
        best = torch.empty(len(clips), rows, count)
        where = torch.empty(len(clips), rows, count, dtype=torch.int64)
        for start in range(0, len(clips), self.part):
            part = slice(start, min(start + self.part, len(clips)))
            maps = self.maps[part]
            for j in range(part.start, part.stop):
                torch.mm(self.filters, self.x[clips[j]], out=self.maps[j])
            maps.relu_()
            torch.sum(maps, -1, out=sums[part])
            torch.linalg.vector_norm(maps, dim=-1, out=norms[part])
            best[part], where[part] = self._maxima(maps)
        if (self.gamma < 0).any():
            self._minima(self.maps[: len(clips)], best, where)
        shape = (len(clips), self.m, 16)
        return sums.view(shape), norms.square_().view(shape), best.view(*shape, -1), where.view(*shape, -1)

    def _maxima(self, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pooling as torch's own kernel over the outer axis: windows take the place of its channels."""
        count = self.net.windows.count
        high = maps.shape[2] // count
        image = maps.view(-1, high, 1, count).permute(0, 3, 1, 2)
        best, where = torch.ops.aten.max_pool2d_with_indices(image, [9, 1], [high, 1])
        return best.view(*maps.shape[:2], count), where.view(*maps.shape[:2], count)

    def _minima(self, maps: torch.Tensor, best: torch.Tensor, where: torch.Tensor) -> None:
        """Where a norm weight is negative its largest output comes from the smallest input."""
        falling = torch.nonzero(self.gamma.flatten() < 0)[:, 0]
        covered = 9 * self.net.windows.count
        far = torch.where(self.net.windows.real[:covered] > 0, 0.0, torch.inf)
        windows = (maps[:, falling, :covered] + far).unflatten(-1, (9, -1))
        best[:, falling], where[:, falling] = windows.min(-2)

    def _descend(
        self,
        block: slice,
        keep: torch.Tensor | None,
        up: torch.Tensor,
        shift: torch.Tensor,
        slope: torch.Tensor,
        where: torch.Tensor,
    ) -> None:
        """Add the block's part of d loss / d filters.

        up: [clips,m,16,q], gradient at the pooled cells; shift, slope: [clips,m,16], the affine part that
        normalisation sends to every output; where: which of a window's nine outputs was pooled.
        """
        clips, count = self.task.clips[block], self.net.windows.count
        down = up @ self.net.windows.average.T
        if keep is not None:
            down *= keep
        place = where * count + torch.arange(count)
        shift, slope = -shift.flatten(1)[..., None], -slope.flatten(1)[..., None]
        down, place = down.flatten(1, 2), place.flatten(1, 2)
        for start in range(0, len(clips), self.part):
            part = slice(start, min(start + self.part, len(clips)))
            maps, spread = self.maps[part], self.spread[: part.stop - part.start]
            torch.mul(maps, slope[part], out=spread)
            spread += shift[part]
            spread.scatter_add_(-1, place[part], down[part])
            torch.ops.aten.threshold_backward.grad_input(spread, maps, 0, grad_input=spread)
            for j, clip in enumerate(clips[part]):
                self.d_filters.addmm_(self.x[clip], spread[j].T)

    # The head: [clips, m, 16, cells].

    def _keep(self, packed: NDArray[np.uint8] | None, block: slice) -> torch.Tensor | None:
        """Dropout factors 0 or 2: float32 [clips,m,16,W]."""
        if packed is None:
            return None
        count = 16 * self.net.windows.count
        bits = np.unpackbits(packed[block], axis=-1, count=count, bitorder="little")
        return torch.from_numpy(bits).float().mul_(2).view(*bits.shape[:2], 16, -1)

    def _pooled(self, best: torch.Tensor, keep: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Pooled outputs after dropout and averaging, and what the same does to a one: [clips,m,16,q]."""
        average = self.net.windows.average
        if keep is None:
            ones = average.sum(0).expand(*best.shape[:-1], -1)
            return best @ average, ones
        return (best * keep) @ average, keep @ average

    def _dense_pooled(
        self, block: slice, keep: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        sums, squares, best, where = self._dense(block)
        return sums, squares, *self._pooled(best, keep), where.to(torch.uint8)

    def _group_statistics(
        self, sums: torch.Tensor, squares: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and 1/sd of each clip and stream, by filter: [clips,m,16]."""
        self.total = self.streams.sum(0) * self.net.windows.positions
        mean = sums @ self.streams / self.total
        var = (squares @ self.streams / self.total - mean.square()).clamp_min_(0)
        return mean @ self.streams.T, torch.rsqrt(var + self.net.eps) @ self.streams.T

    def _batch_statistics(
        self, sums: torch.Tensor, squares: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and 1/sd over the clips of each model's batch: [1,m,16]."""
        self.total = self.member.sum(0) * self.net.windows.positions  # [m,1]
        safe = self.total.clamp_min(1)
        self.mean = (sums * self.member).sum(0) / safe
        self.var = ((squares * self.member).sum(0) / safe - self.mean.square()).clamp_min_(0)
        return self.mean[None], torch.rsqrt(self.var + self.net.eps)[None]

    def _features(
        self, pooled: tuple[torch.Tensor, torch.Tensor], mean: torch.Tensor, spread: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The linear layer's input [m,clips,16q] and its logits [m,clips,K]."""
        best, share = pooled
        scale = self.gamma * spread
        shift = self.beta - mean * scale
        features = scale[..., None] * best + shift[..., None] * share
        features = features.transpose(0, 1).flatten(2)
        return features, torch.baddbmm(self.parts["fc.bias"][:, None], features, self.weight.transpose(1, 2))

    def _head(
        self,
        targets: torch.Tensor,
        pooled: tuple[torch.Tensor, torch.Tensor],
        mean: torch.Tensor,
        spread: torch.Tensor,
        block: slice,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Loss, gradients of everything after the convolutions, and what `_descend` needs."""
        best, share = pooled
        features, logits = self._features(pooled, mean, spread)
        log = torch.log_softmax(logits, -1)
        self.loss -= (targets * log).sum((1, 2))
        error = targets.sum(-1, keepdim=True) * log.exp() - targets  # [m,clips,K]
        self.d_weight.baddbmm_(error.transpose(1, 2), features)
        self.d_bias += error.sum(1)
        up = torch.bmm(error, self.weight).transpose(0, 1).unflatten(-1, (16, -1))  # [clips,m,16,q]
        level = (up * share).sum(-1)
        tilt = ((up * best).sum(-1) - mean * level) * spread
        self.d_beta += level.sum(0)
        self.d_gamma += tilt.sum(0)
        if self.net.norm == "group":
            first = (self.gamma * level) @ self.streams / self.total @ self.streams.T
            second = (self.gamma * tilt) @ self.streams / self.total @ self.streams.T
        else:
            safe = self.total.clamp_min(1)
            first = (self.gamma * level).sum(0) / safe * self.member[block]
            second = (self.gamma * tilt).sum(0) / safe * self.member[block]
        slope = spread.square() * second
        return up * (self.gamma * spread)[..., None], spread * first - mean * slope, slope

    # Back to vectors.

    def flat_gradient(self) -> torch.Tensor:
        """[m, trainable] in the order of the layout."""
        filters = self.d_filters.T.reshape(self.m, 16, -1)
        parts, start = [], 0
        for size in (3, 5, 8):
            rows = slice(start, start + size)
            parts += [filters[:, rows, :-1].flatten(1), filters[:, rows, -1]]
            parts += [self.d_gamma[:, rows], self.d_beta[:, rows]]
            start += size
        return torch.cat([*parts, self.d_weight.flatten(1), self.d_bias], 1)

    def running(self, before: torch.Tensor) -> torch.Tensor:
        """Running statistics after this batch, as torch keeps them: [m, 32]; a model without clips stays."""
        unbiased = self.var * self.total / (self.total - 1).clamp_min(1)
        now, start = [], 0
        for size in (3, 5, 8):
            rows = slice(start, start + size)
            now += [self.mean[:, rows], unbiased[:, rows]]
            start += size
        moved = torch.lerp(before, torch.cat(now, 1), self.net.momentum)
        return torch.where(self.total > 0, moved, before)
