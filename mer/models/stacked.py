"""A stack: M models of one architecture, trained and asked at once.

The folds of a LOSO run and the clients of a federated round are many tiny models of one shape. One matrix
product for all of them costs a fraction of M small ones, so this is the only form in which merveil holds a
network; a single model is a stack of one. A model's vector is its parameters in the frozen order of
`layout`, followed by its buffers (running statistics), which no optimiser touches.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from merveil.mer.coins import Coins
from merveil.mer.errors import InputError

Floats = NDArray[np.float32]
Layout = tuple[tuple[str, tuple[int, ...]], ...]
TOGETHER = 512  # clips, padding included, that one autograd pass takes: larger ones leave the cache


@dataclass(frozen=True, eq=False)
class Gradient:
    """What one step gives: d loss / d parameters [M, trainable], loss [M], buffers after it [M, rest]."""

    value: torch.Tensor
    loss: torch.Tensor
    buffers: torch.Tensor


class StackedNet(ABC):
    """One architecture at one input shape; subclasses say the layout and the arithmetic.

    layout: (name, shape) of the parameters in flat order; buffers: the same for what follows them.
    """

    name: str
    members: int = 1  # networks whose scores are averaged (merveil.mer.models.members)

    def __init__(
        self, shape: tuple[int, int, int], classes: int, layout: Layout, buffers: Layout = ()
    ) -> None:
        self.shape = shape  # height, width, channels of one clip's feature image
        self.classes = classes
        self.layout = layout
        self.buffers = buffers
        self.trainable = sum(math.prod(s) for _, s in layout)
        self.size = self.trainable + sum(math.prod(s) for _, s in buffers)

    @abstractmethod
    def init(self, seed: int) -> Floats:
        """A fresh model: float32 [size], the same for the same seed."""

    @abstractmethod
    def prepare(self, x: NDArray[Any]) -> Floats:
        """The fixed per-clip input transform: uint8 or float [n,h,w,c] -> float32 [n, ...].

        It uses no statistics of other clips, so it may be taken before any split.
        Raises InputError where the shape is not this network's.
        """

    @abstractmethod
    def logits(
        self, params: torch.Tensor, x: torch.Tensor, *, train: bool, generator: Coins | None = None
    ) -> torch.Tensor:
        """Differentiable scores [M,B,K] of params [M,size] on x [M,B,...], or on one x [B,...] for all.

        x is prepared clips or feature images [..., h, w, c]. generator: the dropout coins of this step;
        with train and none given nothing is dropped. train uses batch statistics and changes no buffer.
        """

    def gradients(
        self,
        params: torch.Tensor,
        x: torch.Tensor,
        rows: NDArray[np.int64],
        targets: torch.Tensor,
        coins: Coins | None,
        pool: Executor | None = None,
    ) -> Gradient:
        """Gradient of -sum(targets * log_softmax(logits)) for each model, by autograd.

        x [n,...] holds every clip once; model i is trained on x[rows[i]], rows int64 [M,B], -1 = padding at
        the end of a row; targets [M,B,K] carry labels, class weights and the division by the batch, and are
        zero on padding. pool: threads to run on. Subclasses may override this with arithmetic of their own,
        and must where they have buffers, which this leaves as they are.
        """
        counts = (rows >= 0).sum(1)
        together = max(1, TOGETHER // max(1, int(counts.max(initial=1))))
        chunks = [slice(start, min(start + together, len(rows))) for start in range(0, len(rows), together)]

        def run(chunk: slice) -> tuple[torch.Tensor, torch.Tensor]:
            width = int(counts[chunk].max())
            some = None if coins is None else Coins(coins.seeds[chunk], coins.steps[chunk])
            own = torch.from_numpy(np.maximum(rows[chunk, :width], 0))
            return self._by_autograd(params[chunk], x[own], targets[chunk, :width], some)

        found = list((map if pool is None else pool.map)(run, chunks))
        value, loss = (torch.cat([f[i] for f in found]) for i in (0, 1))
        return Gradient(value, loss, params[:, self.trainable :])

    def _by_autograd(
        self, params: torch.Tensor, x: torch.Tensor, targets: torch.Tensor, coins: Coins | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        leaf = params.detach().clone().requires_grad_()
        scores = torch.log_softmax(self.logits(leaf, x, train=True, generator=coins), -1)
        loss = -(targets * scores).sum((1, 2))
        (value,) = torch.autograd.grad(loss.sum(), leaf)
        return value[:, : self.trainable], loss.detach()

    def predict(self, params: torch.Tensor, x: torch.Tensor, pool: Executor | None = None) -> torch.Tensor:
        """Class probabilities [M,n,K] of every model on every clip of x [n,...]."""
        with torch.no_grad():
            return torch.softmax(self.logits(params, x, train=False), -1)

    def class_biases(self) -> NDArray[np.int64]:
        """Positions in a model's vector of the biases of the classes, int64 [members * K].

        They end every network's layout. Raises InputError where they do not.
        """
        name, shape = self.layout[-1]
        if shape != (self.classes,):
            raise InputError(f"{self.name}: the last tensor, {name}, is not one bias a class")
        return np.arange(self.trainable - self.classes, self.trainable)

    def views(self, params: torch.Tensor) -> dict[str, torch.Tensor]:
        """name -> [M, *shape], views into params [M, >= trainable]."""
        found, start = {}, 0
        for name, shape in self.layout + self.buffers:
            stop = start + math.prod(shape)
            if stop > params.shape[1]:
                break
            found[name] = params[:, start:stop].view(-1, *shape)
            start = stop
        return found

    def check(self, x: NDArray[Any]) -> None:
        """Raise InputError unless x is [n, h, w, c] of this network."""
        if x.ndim != 4 or x.shape[1:] != self.shape:
            wanted = "x".join(map(str, self.shape))
            raise InputError(f"{self.name} was built for clips of {wanted}, the archive has {x.shape[1:]}")


def build(
    name: str, channels: int, height: int, width: int, classes: int, **options: str | float | int
) -> StackedNet:
    """The named network for feature images [height, width, channels].

    Raises InputError for an unknown name, an option the network lacks, or an image too small for it.
    """
    from merveil.mer.models.registry import get

    return get(name).build((height, width, channels), classes, dict(options))


def no_more(name: str, options: Mapping[str, object], known: tuple[str, ...]) -> None:
    """Raise InputError when an option is left that the network does not have."""
    for key in options:
        if key not in known:
            raise InputError(f"{name} has no option {key!r}; it has: {', '.join(known) or 'none'}")
