"""Several networks of one architecture that count as one model: their scores are averaged.

A member trains as it would alone, from coins of its own; what one seed gets wrong by chance averages out.
The vector of the model is its members' one after the other, so a federation trains it with the same sums over
a longer vector, and a step of the server acts on each coordinate alone.
"""

from concurrent.futures import Executor

import numpy as np
import torch
from numpy.typing import NDArray

from merveil.mer.coins import Coins, derive
from merveil.mer.errors import InputError
from merveil.mer.models.stacked import Floats, Gradient, StackedNet

MOST = 32


class Members(StackedNet):
    """`count` networks like `one`, which keeps no batch statistics. InputError: 1 to 32 of them.

    The loss is the sum of the members' own losses: no member sees another's scores in training.
    """

    def __init__(self, one: StackedNet, count: int) -> None:
        if not 1 <= count <= MOST:
            raise InputError(f"{one.name}: members lies in 1..{MOST}, not {count}")
        if one.buffers:
            raise InputError(f"{one.name} keeps batch statistics, which several members cannot")
        self.one, self.members, self.name = one, count, one.name
        self.sides = one.prepare(np.zeros((1, *one.shape), np.uint8)).ndim - 1  # of a prepared clip
        layout = tuple((f"member{k}.{name}", sides) for k in range(count) for name, sides in one.layout)
        super().__init__(one.shape, one.classes, layout)

    def init(self, seed: int) -> Floats:
        """Each member from a seed of its own."""
        return np.concatenate([self.one.init(member_seed(seed, k)) for k in range(self.members)])

    def prepare(self, x: NDArray[np.generic]) -> Floats:
        """As one member's."""
        return self.one.prepare(x)

    def logits(
        self, params: torch.Tensor, x: torch.Tensor, *, train: bool, generator: Coins | None = None
    ) -> torch.Tensor:
        """See StackedNet.logits: the mean of the members' scores, [M,B,K]. Training goes by `gradients`."""
        sides = 3 if x.shape[-3:] == self.shape else self.sides
        if x.ndim - sides == 2:  # a batch of its own for each model
            x = x.repeat_interleave(self.members, 0)
        found = self.one.logits(self._apart(params), x, train=train, generator=self._coins(generator))
        return found.unflatten(0, (len(params), self.members)).mean(1)

    def gradients(
        self,
        params: torch.Tensor,
        x: torch.Tensor,
        rows: NDArray[np.int64],
        targets: torch.Tensor,
        coins: Coins | None,
        pool: Executor | None = None,
    ) -> Gradient:
        """See StackedNet.gradients; the loss is the mean of the members' losses, the gradients are theirs."""
        found = self.one.gradients(
            self._apart(params),
            x,
            np.repeat(rows, self.members, 0),
            targets.repeat_interleave(self.members, 0),
            self._coins(coins),
            pool,
        )
        loss = found.loss.unflatten(0, (len(params), self.members)).mean(1)
        return Gradient(found.value.reshape(len(params), self.trainable), loss, params[:, self.trainable :])

    def class_biases(self) -> NDArray[np.int64]:
        """See StackedNet.class_biases."""
        own = self.one.class_biases()
        return np.concatenate([own + k * self.one.trainable for k in range(self.members)])

    def _apart(self, params: torch.Tensor) -> torch.Tensor:
        """[M,size] -> [M*members, size of one]."""
        return params.reshape(-1, self.one.size)

    def _coins(self, coins: Coins | None) -> Coins | None:
        if coins is None:
            return None
        seeds = [member_seed(seed, k) for seed in coins.seeds for k in range(self.members)]
        return Coins(seeds, np.repeat(coins.steps, self.members).tolist())


def member_seed(seed: int, member: int) -> int:
    """The seed with which a member trains as it would alone."""
    return derive(seed, f"member|{member}")
