"""Networks of the usual size as stacks: one model after the other, each on its own clips, without padding.

A network whose one step on a fold's clips takes tens of milliseconds gains nothing from being laid beside
others, so the models of a stack are stepped in turn, or on the threads of the caller. Subclasses list their
tensors and write the arithmetic of one model down.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from merveil.mer.coins import Coins, generator
from merveil.mer.errors import InputError
from merveil.mer.models.inputs import channels_first, flow_normalised
from merveil.mer.models.stacked import Floats, Gradient, StackedNet

INPUTS = ("flow", "bytes")
EPS, MOMENTUM = 1e-5, 0.1  # of normalisations, as in torch
TOGETHER = 128  # clips of one prediction


@dataclass(frozen=True)
class Tensor:
    """One named tensor of a network; fan 0 marks a norm's weight (1) or bias (0)."""

    name: str
    shape: tuple[int, ...]
    fan: int


def conv(name: str, inputs: int, outputs: int, side: int) -> list[Tensor]:
    """Weight and bias of a square convolution."""
    fan = inputs * side * side
    return [
        Tensor(f"{name}.weight", (outputs, inputs, side, side), fan),
        Tensor(f"{name}.bias", (outputs,), fan),
    ]


def linear(name: str, inputs: int, outputs: int) -> list[Tensor]:
    """Weight and bias of a linear layer."""
    return [Tensor(f"{name}.weight", (outputs, inputs), inputs), Tensor(f"{name}.bias", (outputs,), inputs)]


def norm(name: str, width: int) -> list[Tensor]:
    """Weight and bias of a normalisation."""
    return [Tensor(f"{name}.weight", (width,), 0), Tensor(f"{name}.bias", (width,), 0)]


@dataclass
class Pass:
    """One model's tensors and one pass through it. after: running statistics as the pass leaves them."""

    parts: dict[str, torch.Tensor]
    train: bool
    coins: Coins | None = None
    after: dict[str, torch.Tensor] = field(default_factory=dict)
    _drops: int = 0

    def conv(self, name: str, x: torch.Tensor, padding: int = 0) -> torch.Tensor:
        return functional.conv2d(x, self.parts[f"{name}.weight"], self.parts[f"{name}.bias"], padding=padding)

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.parts[f"{name}.weight"], self.parts[f"{name}.bias"])

    def drop(self, x: torch.Tensor, rate: float, shared: int = 0) -> torch.Tensor:
        """Dropout of x [B,...]; with shared=1 a clip's values go together (stochastic depth)."""
        if not self.train or self.coins is None:
            return x
        self._drops += 1
        features = 1 if shared else math.prod(x.shape[1:])
        keep = torch.from_numpy(self.coins.keep(f"dropout{self._drops}", rate, len(x), features)[0])
        shape = (len(x), *([1] * (x.ndim - 1))) if shared else x.shape
        return x * keep.view(shape) / (1 - rate)

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Batch normalisation where the model has running statistics, else one group a clip."""
        weight, bias = self.parts[f"{name}.weight"], self.parts[f"{name}.bias"]
        if f"{name}.running_mean" not in self.parts:
            return functional.group_norm(x, 1, weight, bias, EPS)
        names = [f"{name}.running_{what}" for what in ("mean", "var")]
        if not self.train:
            mean, var = (self.parts[n] for n in names)
            return functional.batch_norm(x, mean, var, weight, bias, False, MOMENTUM, EPS)
        mean, var = (self.after.get(n, self.parts[n]).detach().clone() for n in names)
        out = functional.batch_norm(x, mean, var, weight, bias, True, MOMENTUM, EPS)
        self.after.update(zip(names, (mean, var)))
        return out


class SingleNet(StackedNet):
    """A network of listed tensors; `forward` is one model's arithmetic on maps [B,c,h,w].

    input: "flow" (default) minus each channel's median, over its rms, cut at 4, clip by clip, so that zero
    flow is 0 whatever grey it had; "bytes" 0 to 1, as the published code reads pictures.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        tensors: Sequence[Tensor],
        *,
        reads: str = "flow",
        batch_norms: Sequence[tuple[str, int]] = (),
    ) -> None:
        if reads not in INPUTS:
            raise InputError(f"{self.name}: input is {' or '.join(INPUTS)}, not {reads!r}")
        if shape[2] != 3:
            raise InputError(f"{self.name} reads [strain, v, u], not {shape[2]} channels")
        self.reads = reads
        self._tensors = tuple(tensors)
        buffers = [
            (f"{name}.running_{what}", (width,)) for name, width in batch_norms for what in ("mean", "var")
        ]
        super().__init__(shape, classes, tuple((t.name, t.shape) for t in tensors), tuple(buffers))

    @abstractmethod
    def forward(self, run: Pass, x: torch.Tensor) -> torch.Tensor:
        """Scores [B,K] of maps x [B,c,h,w]."""

    def init(self, seed: int) -> Floats:
        """Weights and biases uniform within 1/sqrt(fan-in), torch's default; norms at 1 and 0."""
        draw = generator(seed, "init")
        parts = [self.draw(draw, t).ravel() for t in self._tensors]
        parts += [np.full(s, float(n.endswith("var")), np.float32).ravel() for n, s in self.buffers]
        return np.concatenate(parts).astype(np.float32)

    def draw(self, draw: np.random.Generator, tensor: Tensor) -> NDArray[Any]:
        """The first values of one tensor."""
        if tensor.fan == 0:
            return np.full(tensor.shape, float(tensor.name.endswith("weight")), np.float32)
        return draw.uniform(-1, 1, tensor.shape).astype(np.float32) / np.float32(math.sqrt(tensor.fan))

    def prepare(self, x: NDArray[Any]) -> Floats:
        """uint8 or float [n,h,w,3] -> float32 [n,3,h,w]; a float archive is min-max scaled for "bytes"."""
        self.check(x)
        if self.reads == "bytes" and x.dtype != np.uint8:
            low, high = x.min((1, 2), keepdims=True), x.max((1, 2), keepdims=True)
            x = (x - low) * (255 / np.where(high > low, high - low, 1))
        return self._maps(torch.from_numpy(x.astype(np.float32))).contiguous().numpy()

    def _maps(self, images: torch.Tensor) -> torch.Tensor:
        """Images [..., h, w, 3] -> maps [..., 3, h, w]; differentiable, except in the place of the median."""
        if self.reads == "bytes":
            return channels_first(images / 255)
        return channels_first(flow_normalised(images))

    def logits(
        self, params: torch.Tensor, x: torch.Tensor, *, train: bool, generator: Coins | None = None
    ) -> torch.Tensor:
        """See StackedNet.logits."""
        if x.shape[-3:] == self.shape:
            x = self._maps(x)
        shared = x.ndim == 4
        return torch.stack(
            [
                self.forward(Pass(self._one(params, i), train, _only(generator, i)), x if shared else x[i])
                for i in range(len(params))
            ]
        )

    def gradients(
        self,
        params: torch.Tensor,
        x: torch.Tensor,
        rows: NDArray[np.int64],
        targets: torch.Tensor,
        coins: Coins | None,
        pool: Executor | None = None,
    ) -> Gradient:
        """See StackedNet.gradients; with the running statistics after the step."""
        if x.shape[-3:] == self.shape:
            x = self._maps(x)
        counts = (rows >= 0).sum(1)

        def run(i: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            if counts[i] == 0:
                still = params[i].detach()
                return torch.zeros(self.trainable), torch.zeros(()), still[self.trainable :]
            leaf = params[i].detach().clone().requires_grad_()
            own = torch.from_numpy(rows[i, : counts[i]])
            step = Pass(self._one(leaf[None], 0), True, _only(coins, i))
            scores = torch.log_softmax(self.forward(step, x[own]), -1)
            loss = -(targets[i, : counts[i]] * scores).sum()
            (value,) = torch.autograd.grad(loss, leaf)
            after = [step.after.get(n, step.parts[n]).detach().ravel() for n, _ in self.buffers]
            return value[: self.trainable], loss.detach(), torch.cat(after) if after else params.new_zeros(0)

        found = list((map if pool is None else pool.map)(run, range(len(rows))))
        value, loss, buffers = (torch.stack([f[j] for f in found]) for j in range(3))
        return Gradient(value, loss, buffers)

    def predict(self, params: torch.Tensor, x: torch.Tensor, pool: Executor | None = None) -> torch.Tensor:
        """See StackedNet.predict; in parts of clips."""
        with torch.no_grad():
            parts = [self.logits(params, part, train=False) for part in x.split(TOGETHER)]
            return torch.softmax(torch.cat(parts, 1), -1)

    def _one(self, params: torch.Tensor, i: int) -> dict[str, torch.Tensor]:
        return {name: value[0] for name, value in self.views(params[i : i + 1]).items()}


def _only(coins: Coins | None, i: int) -> Coins | None:
    return None if coins is None else Coins([coins.seeds[i]], [coins.steps[i]])
