"""STSTNet's training step by hand: matrix products, and passes that stay in the cache.

What torch's autograd does in some forty passes over [clips, 16, 900] arrays is here, for a chunk of models:
one matrix product for the convolutions of all of them and one compiled pass (ReLU, sums, pooling, dropout,
mean); the head on arrays a thirty-sixth of that size; one compiled pass for the gradient that normalisation
spreads over every output and pooling sends to single ones, and one matrix product for the filters.
Normalisation is affine and monotone, so it is applied to the pooled maxima only (to the minima where its
weight is negative), which gives the same numbers.

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
from merveil.mer.models.stacked import Gradient
from merveil.mer.models.ststnet_passes import backward, forward

if TYPE_CHECKING:
    from merveil.mer.models.ststnet import STSTNet

CHUNK = 8  # models of one matrix product; 128 rows reach the product's full speed
BLOCK = 1024  # rows between two visits of the head, whose small operations cost their launch
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


@dataclass(frozen=True, eq=False)
class Seen:
    """What the forward pass leaves of some clips; see `ststnet_passes._forward`."""

    sums: NDArray[np.float32]  # [clips, R]
    squares: NDArray[np.float32]
    best: NDArray[np.float32]  # [clips, R, q]
    share: NDArray[np.float32]
    where: NDArray[np.uint8]  # [clips, R, W]

    @classmethod
    def empty(cls, clips: int, rows: int, cells: int, windows: int) -> "Seen":
        """Room for that many clips."""
        flat, pooled = (clips, rows), (clips, rows, cells)
        shapes = (flat, flat, pooled, pooled)
        return cls(*(np.empty(s, np.float32) for s in shapes), np.empty((clips, rows, windows), np.uint8))

    @classmethod
    def join(cls, parts: "list[Seen]") -> "Seen":
        """All clips of the parts, in order."""
        names = ("sums", "squares", "best", "share", "where")
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))

    def moments(self, models: int) -> tuple[torch.Tensor, torch.Tensor]:
        """sums and squares as [clips, m, 16]."""
        shape = (len(self.sums), models, -1)
        return torch.from_numpy(self.sums).view(shape), torch.from_numpy(self.squares).view(shape)

    def pooled(self, models: int) -> tuple[torch.Tensor, torch.Tensor]:
        """best and share as [clips, m, 16, q]."""
        shape = (len(self.best), models, 16, self.best.shape[2])
        return torch.from_numpy(self.best).view(shape), torch.from_numpy(self.share).view(shape)


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
        self.d_filters = torch.zeros(self.filters.shape[1], len(self.filters))
        self.d_gamma, self.d_beta = torch.zeros(self.m, 16), torch.zeros(self.m, 16)
        self.d_weight, self.d_bias = torch.zeros_like(self.weight), torch.zeros_like(self.parts["fc.bias"])
        self.block = max(1, BLOCK // len(self.filters))
        self.maps = torch.empty(min(self.block, self.u), len(self.filters), 9 * net.windows.count)

    def train(self, targets: torch.Tensor, packed: NDArray[np.uint8] | None) -> None:
        """Fill the gradients. targets [m,u,K]; packed: dropout coins [u,m,bytes] or None."""
        blocks = [slice(s, min(s + self.block, self.u)) for s in range(0, self.u, self.block)]
        if self.net.norm == "group":
            for block in blocks:
                keep = self._keep(packed, block)
                seen = self._dense(block, keep)
                up, shift, slope = self._head(targets[:, block], seen, *self._group_statistics(seen), block)
                self._descend(block, keep, up, shift, slope, seen.where, fresh=True)
            return
        parts = [self._dense(block, self._keep(packed, block)) for block in blocks]
        seen = Seen.join(parts)
        up, shift, slope = self._head(targets, seen, *self._batch_statistics(seen), slice(0, self.u))
        for block in blocks:
            keep = self._keep(packed, block)
            self._descend(block, keep, up[block], shift[block], slope[block], seen.where[block], fresh=False)

    def scores(self) -> torch.Tensor:
        """Logits [m,u,K] in evaluation: running statistics where there are any, no dropout."""
        found = []
        for start in range(0, self.u, self.block):
            block = slice(start, min(start + self.block, self.u))
            seen = self._dense(block, self._keep(None, block))
            if self.net.norm == "group":
                mean, spread = self._group_statistics(seen)
            else:
                mean = torch.cat([self.parts[f"norm{i}.running_mean"] for i in (1, 2, 3)], 1)[None]
                var = torch.cat([self.parts[f"norm{i}.running_var"] for i in (1, 2, 3)], 1)[None]
                spread = torch.rsqrt(var + self.net.eps)
            found.append(self._features(seen, mean, spread)[1])
        return torch.cat(found, 1)

    # Dense work: [clips, R, 9W].

    def _keep(self, packed: NDArray[np.uint8] | None, block: slice) -> NDArray[np.uint8]:
        """Dropout factors 0 or 2, or 1 where nothing is dropped: uint8 [clips,R,W]."""
        windows = self.net.windows.count
        if packed is None:
            return np.ones((len(self.task.clips[block]), len(self.filters), windows), np.uint8)
        bits = np.unpackbits(packed[block], axis=-1, count=16 * windows, bitorder="little")
        return (bits << 1).reshape(len(bits), -1, windows)

    def _dense(self, block: slice, keep: NDArray[np.uint8]) -> "Seen":
        """Convolve and pool a block's clips; the outputs after ReLU stay in the work space."""
        clips, rows, windows = self.task.clips[block], len(self.filters), self.net.windows
        seen = Seen.empty(len(clips), rows, windows.cells, windows.count)
        falling = (self.gamma < 0).flatten().numpy().astype(np.uint8)
        inside, maps = windows.inside.numpy(), self.maps.numpy()
        for j, clip in enumerate(clips):
            torch.mm(self.filters, self.x[clip], out=self.maps[j])
            out = (seen.sums[j], seen.squares[j], seen.best[j], seen.share[j], seen.where[j])
            forward(maps[j], inside, falling, keep[j], windows.cells, *out)
        return seen

    def _descend(
        self,
        block: slice,
        keep: NDArray[np.uint8],
        up: torch.Tensor,
        shift: torch.Tensor,
        slope: torch.Tensor,
        where: NDArray[np.uint8],
        fresh: bool,
    ) -> None:
        """Add the block's part of d loss / d filters.

        up: [clips,m,16,q], gradient at the pooled cells; shift, slope: [clips,m,16], the affine part that
        normalisation sends to every output; where: which of a window's nine outputs was pooled; fresh: the
        work space still holds this block, else it is convolved again, which costs less than keeping it.
        """
        ups = up.flatten(1, 2).contiguous().numpy()
        shifts, slopes = shift.flatten(1).numpy(), slope.flatten(1).numpy()
        maps = self.maps.numpy()
        for j, clip in enumerate(self.task.clips[block]):
            if not fresh:
                torch.mm(self.filters, self.x[clip], out=self.maps[j])
            backward(maps[j], where[j], keep[j], ups[j], shifts[j], slopes[j])
            self.d_filters.addmm_(self.x[clip], self.maps[j].T)

    # The head: [clips, m, 16, q].

    def _group_statistics(self, seen: "Seen") -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and 1/sd of each clip and stream, by filter: [clips,m,16]."""
        sums, squares = seen.moments(self.m)
        self.total = self.streams.sum(0) * self.net.windows.positions
        mean = sums @ self.streams / self.total
        var = (squares @ self.streams / self.total - mean.square()).clamp_min_(0)
        return mean @ self.streams.T, torch.rsqrt(var + self.net.eps) @ self.streams.T

    def _batch_statistics(self, seen: "Seen") -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and 1/sd over the clips of each model's batch: [1,m,16]."""
        sums, squares = seen.moments(self.m)
        self.total = self.member.sum(0) * self.net.windows.positions  # [m,1]
        safe = self.total.clamp_min(1)
        self.mean = (sums * self.member).sum(0) / safe
        self.var = ((squares * self.member).sum(0) / safe - self.mean.square()).clamp_min_(0)
        return self.mean[None], torch.rsqrt(self.var + self.net.eps)[None]

    def _features(
        self, seen: "Seen", mean: torch.Tensor, spread: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The linear layer's input [m,clips,16q] and its logits [m,clips,K]."""
        best, share = seen.pooled(self.m)
        scale = self.gamma * spread
        shift = self.beta - mean * scale
        features = scale[..., None] * best + shift[..., None] * share
        features = features.transpose(0, 1).flatten(2)
        return features, torch.baddbmm(self.parts["fc.bias"][:, None], features, self.weight.transpose(1, 2))

    def _head(
        self,
        targets: torch.Tensor,
        seen: "Seen",
        mean: torch.Tensor,
        spread: torch.Tensor,
        block: slice,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Loss, gradients of everything after the convolutions, and what `_descend` needs."""
        best, share = seen.pooled(self.m)
        features, logits = self._features(seen, mean, spread)
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
