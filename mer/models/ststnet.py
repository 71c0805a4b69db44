"""STSTNet, the shallow triple-stream network of Liong et al. 2019, as a stack.

Three parallel streams of 3, 5 and 8 filters read the same image [strain, v, u]: convolution 3x3 with padding
2, ReLU, normalisation, max-pooling 3/3 with padding 1, dropout one half; then the 16 maps are averaged 2/2
and one linear layer gives the classes. 1,683 parameters for 28x28x3 and three classes.
Source: Liong, Gan, See, Khor, Huang, "Shallow Triple Stream Three-dimensional CNN (STSTNet) for
Micro-expression Recognition", FG 2019, and the authors' PyTorch code (christy1206/STSTNet, main.py).

norm="batch" is the published form. The default norm="group" puts GroupNorm with one group in each stream in
its place: the same number of parameters, and no statistics of other people's clips, which a federation could
neither share nor hide. Input is 0-255 unscaled, as published.
"""

import math
from concurrent.futures import Executor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from merveil.mer.coins import Coins, generator
from merveil.mer.errors import InputError
from merveil.mer.models import ststnet_kernel
from merveil.mer.models.stacked import Floats, Gradient, StackedNet, no_more
from merveil.mer.models.windows import Windows

STREAMS = (3, 5, 8)  # filters of the three streams
FILTERS = sum(STREAMS)
DROPOUT = 0.5
EPS = 1e-5  # of both normalisations, as in torch
MOMENTUM = 0.1  # of the running statistics, as in torch


class STSTNet(StackedNet):
    """The stack; `norm` is "group" (default) or "batch" (as published)."""

    name = "ststnet"
    eps, momentum = EPS, MOMENTUM

    def __init__(self, shape: tuple[int, int, int], classes: int, norm: str = "group") -> None:
        if norm not in ("group", "batch"):
            raise InputError(f"ststnet: norm is 'group' or 'batch', not {norm!r}")
        self.norm = norm
        self.windows = Windows(*shape)
        self.cells = self.windows.cells
        if self.cells == 0:
            raise InputError(f"ststnet needs images of at least 3x3, not {shape[0]}x{shape[1]}")
        layout: list[tuple[str, tuple[int, ...]]] = []
        buffers: list[tuple[str, tuple[int, ...]]] = []
        for i, filters in enumerate(STREAMS, 1):
            layout += [
                (f"conv{i}.weight", (filters, shape[2], 3, 3)),
                (f"conv{i}.bias", (filters,)),
                (f"norm{i}.weight", (filters,)),
                (f"norm{i}.bias", (filters,)),
            ]
            if norm == "batch":
                buffers += [(f"norm{i}.running_mean", (filters,)), (f"norm{i}.running_var", (filters,))]
        layout += [("fc.weight", (classes, FILTERS * self.cells)), ("fc.bias", (classes,))]
        super().__init__(shape, classes, tuple(layout), tuple(buffers))

    def init(self, seed: int) -> Floats:
        """Weights and biases uniform within 1/sqrt(fan-in), torch's default; norms at 1 and 0."""
        draw = generator(seed, "init")
        parts = []
        for name, shape in self.layout + self.buffers:
            if name.startswith("norm"):
                one = name.endswith((".weight", "running_var"))
                parts.append(np.full(shape, float(one), np.float32))
            else:
                fan = 9 * self.shape[2] if name.startswith("conv") else FILTERS * self.cells
                parts.append(draw.uniform(-1, 1, shape).astype(np.float32) / np.float32(math.sqrt(fan)))
        return np.concatenate([p.ravel() for p in parts])

    def prepare(self, x: NDArray[Any]) -> Floats:
        """Columns float32 [n, 9c+1, 9W] in window order (see `Windows`); made once, used in every epoch.

        uint8 is taken as it is, 0-255, unscaled. A float archive is first min-max scaled to 0-255 by clip
        and channel, which is how the published uint8 maps were made; a constant channel becomes 0.
        """
        self.check(x)
        if x.dtype != np.uint8:
            low, high = x.min((1, 2), keepdims=True), x.max((1, 2), keepdims=True)
            span = np.where(high > low, high - low, 1)
            x = (x - low) * (255 / span)
        return self.windows.columns(torch.from_numpy(x.astype(np.float32))).numpy()

    def logits(
        self, params: torch.Tensor, x: torch.Tensor, *, train: bool, generator: Coins | None = None
    ) -> torch.Tensor:
        """See StackedNet.logits; x is prepared columns or 0-255 images."""
        x = self._columns(x)
        parts, models = self.views(params), params.shape[0]
        if x.ndim == 3:
            x = x.expand(models, *x.shape)
        mixed = torch.relu(torch.matmul(self.filters(params)[:, None], x))  # [M,B,16,9W]
        maps = torch.cat(
            [self._normalised(part, parts, i, train) for i, part in enumerate(mixed.split(STREAMS, 2), 1)],
            2,
        )
        best = self.windows.pool(maps)  # [M,B,16,W]
        if train and generator is not None:
            keep = self.keep(generator, x.shape[1])
            best = best * torch.from_numpy(keep) * 2
        flat = (best @ self.windows.average).flatten(2)
        return torch.baddbmm(parts["fc.bias"][:, None], flat, parts["fc.weight"].transpose(1, 2))

    def gradients(
        self,
        params: torch.Tensor,
        x: torch.Tensor,
        rows: NDArray[np.int64],
        targets: torch.Tensor,
        coins: Coins | None,
        pool: Executor | None = None,
    ) -> Gradient:
        """See StackedNet.gradients: by hand, equal to autograd on `logits` up to rounding."""
        return ststnet_kernel.gradients(self, params, self._columns(x), rows, targets, coins, pool)

    def predict(self, params: torch.Tensor, x: torch.Tensor, pool: Executor | None = None) -> torch.Tensor:
        """See StackedNet.predict."""
        return ststnet_kernel.predict(self, params, self._columns(x), pool)

    def _columns(self, x: torch.Tensor) -> torch.Tensor:
        """Prepared columns as they are, 0-255 images laid out."""
        return self.windows.columns(x) if x.shape[-3:] == self.shape else x

    def filters(self, params: torch.Tensor) -> torch.Tensor:
        """The three streams' filters with their biases as one matrix a model: [M, 16, 9c+1]."""
        parts, rows = self.views(params), []
        for i in range(1, 4):
            weight = parts[f"conv{i}.weight"].flatten(2)
            rows.append(torch.cat([weight, parts[f"conv{i}.bias"][..., None]], 2))
        return torch.cat(rows, 1)

    def keep(self, coins: Coins, clips: int) -> NDArray[np.bool_]:
        """Dropout: which pooled cells stay, bool [M, clips, 16, W]."""
        count = FILTERS * self.windows.count
        packed = coins.fair("dropout", clips, count)
        bits = np.unpackbits(packed, axis=-1, count=count, bitorder="little")
        return bits.reshape(*packed.shape[:2], FILTERS, -1).astype(bool)

    def _normalised(
        self, part: torch.Tensor, parts: dict[str, torch.Tensor], i: int, train: bool
    ) -> torch.Tensor:
        """Group or batch normalisation of one stream [M,B,C,9W] over its real columns."""
        real, count = self.windows.real, self.windows.positions
        if self.norm == "batch" and not train:
            mean = parts[f"norm{i}.running_mean"][:, None, :, None]
            var = parts[f"norm{i}.running_var"][:, None, :, None]
        else:
            dims = (2, 3) if self.norm == "group" else (1, 3)
            total = count * (part.shape[2] if self.norm == "group" else part.shape[1])
            mean = part.sum(dims, keepdim=True) / total
            var = (((part - mean) * real) ** 2).sum(dims, keepdim=True) / total
        scaled = (part - mean) * torch.rsqrt(var + EPS)
        weight, bias = parts[f"norm{i}.weight"], parts[f"norm{i}.bias"]
        return scaled * weight[:, None, :, None] + bias[:, None, :, None]


def make(shape: tuple[int, int, int], classes: int, options: dict[str, Any]) -> STSTNet:
    """Registry hook."""
    no_more("ststnet", options, ("norm",))
    return STSTNet(shape, classes, str(options.get("norm", "group")))
