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

from collections.abc import Callable, Iterable, Iterator
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
WIDE = 4  # models of a task that is worth a thread
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
    with torch.no_grad():
        stack, wanted = Stack(net, params), targets.numpy()
        buffers = params[:, net.trainable :].clone()

        def run(task: Task) -> None:
            step = _Step(net, stack, x, task)
            step.train(_place_targets(wanted, task), _place_coins(net, coins, task))
            if net.buffers:
                index = torch.from_numpy(task.models)
                buffers[index] = step.running(buffers[index])

        _for_each(run, tasks(rows), pool)
        return Gradient(stack.flat_gradient(), stack.loss, buffers)


def _for_each(run: Callable[[Task], None], every: Iterable[Task], pool: Executor | None) -> None:
    """Run the tasks; wide ones on the pool's threads, narrow ones here.

    The operations of a narrow task last ten microseconds each; two threads then spend their time handing the
    interpreter's lock to each other (measured: 29 ms instead of 16 for 24 clients of 8 clips).
    """
    listed = list(every)
    wide = [task for task in listed if len(task.models) >= WIDE]
    if pool is not None and len(wide) > 1:
        list(pool.map(run, wide))
        listed = [task for task in listed if len(task.models) < WIDE]
    for task in listed:
        run(task)


def predict(net: "STSTNet", params: torch.Tensor, x: torch.Tensor, pool: Executor | None) -> torch.Tensor:
    """Class probabilities [M,n,K] without dropout, running statistics where there are any."""
    with torch.no_grad():
        stack = Stack(net, params)
        found = torch.zeros(len(params), len(x), net.classes)
        rows = np.broadcast_to(np.arange(len(x)), (len(params), len(x)))

        def run(task: Task) -> None:
            scores = _Step(net, stack, x, task).scores()
            found[torch.from_numpy(task.models)] = torch.softmax(scores, -1)

        _for_each(run, tasks(rows), pool)
        return found


def _place_targets(targets: NDArray[np.float32], task: Task) -> NDArray[np.float32]:
    """targets [M,B,K] by clip of the task: [u,m,K], zero where a clip is not the model's."""
    found = np.zeros((len(task.clips), len(task.models), targets.shape[2]), np.float32)
    for i, model in enumerate(task.models):
        mine = np.flatnonzero(task.place[i] >= 0)
        found[mine, i] = targets[model, task.place[i, mine]]
    return found


def _place_coins(net: "STSTNet", coins: Coins | None, task: Task) -> NDArray[np.uint8]:
    """Dropout factors by clip of the task, 0 or 2, or 1 where nothing is dropped: uint8 [u, 16m, W]."""
    windows = net.windows.count
    if coins is None:
        return np.ones((len(task.clips), 16 * len(task.models), windows), np.uint8)
    count = 16 * windows
    packed = np.zeros((len(task.clips), len(task.models), -(-count // 64) * 8), np.uint8)
    for i, model in enumerate(task.models):
        place = task.place[i]
        mine = np.flatnonzero(place >= 0)
        source = stream(coins.seeds[model], "dropout", coins.steps[model])
        packed[mine, i] = keep_bits(source, int(place.max()) + 1, count)[place[mine]]
    bits = np.unpackbits(packed, axis=-1, count=count, bitorder="little")
    bits <<= 1
    return bits.reshape(len(bits), -1, windows)


class Stack:
    """The parameters of M models as the passes want them, and room for their gradients."""

    def __init__(self, net: "STSTNet", params: torch.Tensor) -> None:
        self.parts = net.views(params)
        self.filters = net.filters(params)  # [M,16,9c+1]
        self.norms = (self.norm("weight"), self.norm("bias"))  # [M,16]
        self.last = (self.parts["fc.weight"].numpy(), self.parts["fc.bias"].numpy())  # [M,K,16q], [M,K]
        self.loss = torch.zeros(len(params))
        self.d_filters = torch.zeros_like(self.filters)
        self.grads = tuple(np.zeros(a.shape, np.float32) for a in (*self.norms, *self.last))

    def norm(self, what: str) -> NDArray[np.float32]:
        """One of the norms' vectors over the 16 filters: [M,16]."""
        return torch.cat([self.parts[f"norm{i}.{what}"] for i in (1, 2, 3)], 1).numpy()

    def flat_gradient(self) -> torch.Tensor:
        """[M, trainable] in the order of the layout."""
        d_gamma, d_beta, d_weight, d_bias = (torch.from_numpy(g) for g in self.grads)
        parts = []
        for low, high in passes.ENDS:
            rows = slice(low, high)
            parts += [self.d_filters[:, rows, :-1].flatten(1), self.d_filters[:, rows, -1]]
            parts += [d_gamma[:, rows], d_beta[:, rows]]
        return torch.cat([*parts, d_weight.flatten(1), d_bias], 1)


class _Step:
    """One chunk of models on one list of clips; numpy arrays share their memory with torch's."""

    def __init__(self, net: "STSTNet", stack: Stack, x: torch.Tensor, task: Task) -> None:
        self.net, self.stack, self.x, self.task = net, stack, x, task
        models = task.models
        self.filters = stack.filters[torch.from_numpy(models)].flatten(0, 1)  # [R, 9c+1]
        self.gamma, self.beta = (a[models] for a in stack.norms)
        self.head = tuple(np.ascontiguousarray(a[models]) for a in stack.last)
        self.loss = np.zeros(len(models), np.float32)
        self.d_filters = torch.zeros(self.filters.shape[1], len(self.filters))
        self.grads = tuple(np.zeros(a.shape, np.float32) for a in (self.gamma, self.beta, *self.head))
        self.maps = torch.empty(len(self.filters), 9 * net.windows.count)
        self.outputs = self.maps.numpy()
        self.inside = net.windows.inside.numpy()

    def train(self, targets: NDArray[np.float32], keep: NDArray[np.uint8]) -> None:
        """Put the gradients into the stack. targets [u,m,K]; keep: dropout factors uint8 [u,16m,W]."""
        if self.net.norm == "batch":
            self._train_batch(targets, keep)
        else:
            self._train_group(targets, keep)
        models = self.task.models
        self.stack.loss[torch.from_numpy(models)] = torch.from_numpy(self.loss)
        filters = self.d_filters.T.reshape(len(models), 16, -1)
        self.stack.d_filters[torch.from_numpy(models)] = filters
        for whole, own in zip(self.stack.grads, self.grads):
            whole[models] = own

    def _train_group(self, targets: NDArray[np.float32], keep: NDArray[np.uint8]) -> None:
        positions, eps = self.net.windows.positions, self.net.eps
        for j, clip in enumerate(self.task.clips):
            columns = self.x[clip]
            torch.mm(self.filters, columns, out=self.maps)
            passes.group_step(
                self.outputs, self.inside, self.gamma, self.beta, *self.head, keep[j], targets[j],
                positions, eps, *self.grads, self.loss,
            )  # fmt: skip
            self.d_filters.addmm_(columns, self.maps.T)

    def _train_batch(self, targets: NDArray[np.float32], keep: NDArray[np.uint8]) -> None:
        seen, models = self._pool_all(keep), len(self.gamma)
        member = (self.task.place >= 0).T[..., None].astype(np.float64)  # [u,m,1]
        self.total = member.sum(0) * self.net.windows.positions  # [m,1]
        moments = [
            (a.reshape(-1, models, 16) * member).sum(0) / self.total for a in (seen.sums, seen.squares)
        ]
        self.mean, self.var = moments[0], np.maximum(moments[1] - moments[0] ** 2, 0)
        rate = 1 / np.sqrt(self.var + self.net.eps)
        up = np.empty_like(seen.best)
        statistics = (self.mean.astype(np.float32), rate.astype(np.float32))
        passes.batch_head(
            seen.best, seen.share, self.gamma, self.beta, *statistics, *self.head, targets,
            *self.grads, up, self.loss,
        )  # fmt: skip
        d_gamma, d_beta = self.grads[:2]
        slope = rate**2 * self.gamma * d_gamma / self.total  # the batch's sums are these gradients
        shift = rate * self.gamma * d_beta / self.total - self.mean * slope
        slopes, shifts = ((member * a).reshape(len(up), -1).astype(np.float32) for a in (slope, shift))
        for j, clip in enumerate(self.task.clips):
            columns = self.x[clip]
            torch.mm(self.filters, columns, out=self.maps)
            passes.spread(self.outputs, seen.where[j], keep[j], up[j], shifts[j], slopes[j])
            self.d_filters.addmm_(columns, self.maps.T)

    def scores(self) -> torch.Tensor:
        """Logits [m,u,K] in evaluation: running statistics where there are any, no dropout."""
        seen, models = self._pool_all(_place_coins(self.net, None, self.task)), len(self.gamma)
        found = np.empty((len(seen.sums), models, self.net.classes), np.float32)
        mean, rate = np.empty((models, 16), np.float32), np.empty((models, 16), np.float32)
        if self.net.norm == "batch":
            mean[:] = self.stack.norm("running_mean")[self.task.models]
            rate[:] = 1 / np.sqrt(self.stack.norm("running_var")[self.task.models] + self.net.eps)
        for j in range(len(found)):
            if self.net.norm == "group":
                for m in range(models):
                    rows = slice(16 * m, 16 * m + 16)
                    sums = (seen.sums[j, rows], seen.squares[j, rows])
                    passes.group_statistics(*sums, self.net.windows.positions, self.net.eps, mean[m], rate[m])
            pooled = (seen.best[j], seen.share[j])
            passes.batch_scores(*pooled, self.gamma, self.beta, mean, rate, *self.head, found[j])
        return torch.from_numpy(found).transpose(0, 1)

    def _pool_all(self, keep: NDArray[np.uint8]) -> "Seen":
        """Convolve and pool every clip."""
        windows, gamma = self.net.windows, self.gamma.ravel()
        seen = Seen.empty(len(self.task.clips), len(self.filters), windows.cells, windows.count)
        for j, clip in enumerate(self.task.clips):
            torch.mm(self.filters, self.x[clip], out=self.maps)
            out = (seen.sums[j], seen.squares[j], seen.best[j], seen.share[j], seen.where[j])
            passes.pool(self.outputs, self.inside, gamma, keep[j], *out)
        return seen

    def running(self, before: torch.Tensor) -> torch.Tensor:
        """Running statistics after this batch, as torch keeps them: [m,32]."""
        unbiased = self.var * self.total / (self.total - 1)
        now = [a[:, low:high] for low, high in passes.ENDS for a in (self.mean, unbiased)]
        return torch.lerp(before, torch.from_numpy(np.concatenate(now, 1)).float(), self.net.momentum)


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
