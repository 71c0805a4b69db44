"""Adam, AdamW and SGD over a stack, with the state in the open so that a checkpoint can hold it.

The formulas and their order of operations are torch.optim's (Kingma & Ba 2015; Loshchilov & Hutter 2019);
one call steps M models, each with its own step count and rate.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from merveil.mer.errors import InputError
from merveil.mer.recipe import OPTIMISERS

BETAS = (0.9, 0.999)
EPS = 1e-8


@dataclass(eq=False)
class OptimiserState:
    """Moments of M models, updated in place. kind: "adam", "adamw" or "sgd" (plain, without momentum).

    first, second: float32 [M, trainable] (empty for sgd); steps: int64 [M], steps taken so far, which also
    number the training coins.
    """

    kind: str
    first: torch.Tensor
    second: torch.Tensor
    steps: NDArray[np.int64]

    @classmethod
    def fresh(cls, kind: str, models: int, trainable: int) -> "OptimiserState":
        """No steps taken. Raises InputError for an unknown kind."""
        if kind not in OPTIMISERS:
            raise InputError(f"there is no optimiser {kind!r}; there are: {', '.join(OPTIMISERS)}")
        width = 0 if kind == "sgd" else trainable
        zeros = torch.zeros(models, width)
        return cls(kind, zeros, zeros.clone(), np.zeros(models, np.int64))

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Copies, for a checkpoint."""
        return {
            "first": self.first.numpy().copy(),
            "second": self.second.numpy().copy(),
            "steps": self.steps.copy(),
        }

    @classmethod
    def from_arrays(cls, kind: str, arrays: dict[str, NDArray[np.generic]]) -> "OptimiserState":
        """The state that `to_arrays` gave."""
        first, second = (torch.from_numpy(np.array(arrays[k], np.float32)) for k in ("first", "second"))
        return cls(kind, first, second, np.array(arrays["steps"], np.int64))

    def step(
        self, params: torch.Tensor, grad: torch.Tensor, rate: NDArray[np.float64], weight_decay: float
    ) -> None:
        """One step of every model with rate > 0: params [M, trainable] change in place.

        grad: [M, trainable], used up; rate: float64 [M]. A model with rate 0 is left exactly as it was.
        """
        live = torch.from_numpy(np.flatnonzero(rate > 0))
        every = len(live) == len(rate)
        self.steps[rate > 0] += 1
        lr = torch.from_numpy(rate[rate > 0]).float()[:, None]
        p, g = (params, grad) if every else (params[live], grad[live])
        if weight_decay and self.kind != "adamw":
            g = g.add(p, alpha=weight_decay)
        elif weight_decay:
            p.mul_(1 - lr * weight_decay)
        if self.kind == "sgd":
            p.sub_(lr * g)
        else:
            self._adam(p, g, lr, None if every else live)
        if not every:
            params[live] = p

    def _adam(self, p: torch.Tensor, g: torch.Tensor, lr: torch.Tensor, live: torch.Tensor | None) -> None:
        m, v = (self.first, self.second) if live is None else (self.first[live], self.second[live])
        count = self.steps if live is None else self.steps[live.numpy()]
        m.lerp_(g, 1 - BETAS[0])
        v.mul_(BETAS[1]).addcmul_(g, g, value=1 - BETAS[1])
        bias1 = torch.from_numpy(1 - BETAS[0] ** count).float()[:, None]
        bias2 = torch.from_numpy(np.sqrt(1 - BETAS[1] ** count)).float()[:, None]
        p.sub_(lr / bias1 * m / (v.sqrt().div_(bias2).add_(EPS)))
        if live is not None:
            self.first[live], self.second[live] = m, v
