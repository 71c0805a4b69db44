"""Networks that only the attacks use: what the zoo lacks and some attacks need, and crafted start models.

conv-fc: two convolutions, a hidden layer of 32 units with ReLU, and the classes: the form of most small image
networks. relu-mlp: one wide ReLU layer on the pixels, the stem of a crafted model. They are in no registry
of recognisers; `build` knows them and passes every other name on.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from merveil.attacks.crafting import bins, trap
from merveil.attacks.replay import scaled
from merveil.mer.coins import Coins, generator
from merveil.mer.models import stacked
from merveil.mer.models.stacked import Floats, Layout, StackedNet

FACTORS = tuple(1 - 0.002 * 1.25**i for i in range(20))  # of trap rows, from .998 to .86
SCALE = 64.0  # grey levels, after 128 is taken away


class _Probe(StackedNet):
    """What both share: uniform start weights, inputs scaled to about one."""

    def init(self, seed: int) -> Floats:
        """Weights and biases uniform within 1/sqrt(fan-in), torch's default."""
        draw, parts, fan = generator(seed, "init"), [], 1
        for name, shape in self.layout:
            fan = math.prod(shape[1:]) if name.endswith("weight") else fan
            parts.append(draw.uniform(-1, 1, shape).astype(np.float32) / np.float32(math.sqrt(fan)))
        return np.concatenate([p.ravel() for p in parts])

    def prepare(self, x: NDArray[Any]) -> Floats:
        """float32 [n,h,w,c] on the scale 0-255, from bytes or floats."""
        self.check(x)
        return scaled(x)

    def _ready(self, params: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Prepared x as [M,B,h,w,c] of about unit size."""
        return (x if x.ndim == 5 else x.expand(len(params), *x.shape)).sub(128.0).div(SCALE)

    def raw(self, ready: NDArray[np.float64]) -> NDArray[np.float64]:
        """Images of 0-255 from what `_ready` made of them."""
        return np.asarray(ready * SCALE + 128.0)


class ConvFC(_Probe):
    """conv 3x3 to 8, mean pool, conv 3x3 to 16, mean pool, ReLU layer of 32, classes."""

    name = "conv-fc"

    def __init__(self, shape: tuple[int, int, int], classes: int, hidden: int = 32) -> None:
        self.hidden, self.inputs = hidden, 16 * (shape[0] // 4) * (shape[1] // 4)
        layout: Layout = (
            ("conv1.weight", (8, 9 * shape[2])), ("conv1.bias", (8,)),
            ("conv2.weight", (16, 72)), ("conv2.bias", (16,)),
            ("fc.weight", (hidden, self.inputs)), ("fc.bias", (hidden,)),
            ("last.weight", (classes, hidden)), ("last.bias", (classes,)),
        )  # fmt: skip
        super().__init__(shape, classes, layout)

    def features(self, params: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Input of the hidden layer [M,B,inputs] from prepared x."""
        parts, x = self.views(params), self._ready(params, x)
        models, clips = x.shape[:2]
        maps, (h, w) = x.movedim(-1, 2), self.shape[:2]
        for i in (1, 2):
            columns = functional.unfold(maps.flatten(0, 1), 3, padding=1).unflatten(0, (models, clips))
            mixed = parts[f"conv{i}.weight"][:, None] @ columns + parts[f"conv{i}.bias"][:, None, :, None]
            pooled = functional.avg_pool2d(torch.relu(mixed).flatten(0, 1).unflatten(-1, (h, w)), 2)
            maps, h, w = pooled.unflatten(0, (models, clips)), h // 2, w // 2
        return maps.flatten(2)

    def logits(
        self, params: torch.Tensor, x: torch.Tensor, *, train: bool, generator: Coins | None = None
    ) -> torch.Tensor:
        """See StackedNet.logits."""
        parts = self.views(params)
        units = torch.baddbmm(
            parts["fc.bias"][:, None], self.features(params, x), parts["fc.weight"].transpose(1, 2)
        )
        return torch.baddbmm(
            parts["last.bias"][:, None], torch.relu(units), parts["last.weight"].transpose(1, 2)
        )


class ReluMLP(_Probe):
    """`hidden` ReLU units on the pixels, then the classes."""

    name = "relu-mlp"

    def __init__(self, shape: tuple[int, int, int], classes: int, hidden: int = 64) -> None:
        self.hidden, self.inputs = hidden, math.prod(shape)
        layout: Layout = (
            ("fc.weight", (hidden, self.inputs)), ("fc.bias", (hidden,)),
            ("last.weight", (classes, hidden)), ("last.bias", (classes,)),
        )  # fmt: skip
        super().__init__(shape, classes, layout)

    def features(self, params: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """The pixels [M,B,inputs]."""
        return self._ready(params, x).flatten(2)

    def logits(
        self, params: torch.Tensor, x: torch.Tensor, *, train: bool, generator: Coins | None = None
    ) -> torch.Tensor:
        """See StackedNet.logits."""
        parts = self.views(params)
        units = torch.baddbmm(
            parts["fc.bias"][:, None], self.features(params, x), parts["fc.weight"].transpose(1, 2)
        )
        return torch.baddbmm(
            parts["last.bias"][:, None], torch.relu(units), parts["last.weight"].transpose(1, 2)
        )


def crafted(kind: str, net: ReluMLP, images: NDArray[Any], seed: int, cohort: int) -> Floats:
    """A start model [P] made to leak (`attacks.crafting`). images: public ones, by which it is set.

    bins: every unit measures a clip's mean, unit i those above the i-th quantile. trap: of FACTORS the one
    that wakes a unit for nearest to one clip in `cohort`; biases make the pixels positive, as in the source.
    """
    rng = np.random.default_rng(seed)
    if kind == "bins":
        weight, bias = bins(_cuts(net, images), net.inputs)
        last = rng.normal(0, 1, (net.classes, 1)).repeat(net.hidden, 1) / net.hidden
    else:
        weight, bias = _trapped(net, images, rng, cohort)
        last = rng.normal(0, 1, (net.classes, net.hidden)) / np.sqrt(net.hidden)
    return np.concatenate([p.ravel() for p in (weight, bias, last, np.zeros(net.classes))]).astype(np.float32)


def _trapped(net: ReluMLP, images: NDArray[Any], rng: np.random.Generator, cohort: int) -> Any:
    x = (net.prepare(images).reshape(len(images), -1).astype(np.float64) - 128.0) / SCALE
    found = []
    for factor in FACTORS:
        weight = trap(net.hidden, net.inputs, factor, rng)
        bias = weight.sum(1) * (128.0 / SCALE)  # w (x + 2): pixels from 0 on
        found.append((abs(float((x @ weight.T + bias > 0).mean()) - 1 / cohort), weight, bias))
    _, weight, bias = min(found, key=lambda f: f[0])
    return weight, bias


def _cuts(net: ReluMLP, images: NDArray[Any]) -> Any:
    """Quantiles of the images' mean, one a unit."""
    mean = (net.prepare(images).reshape(len(images), -1).mean(1) - 128.0) / SCALE
    levels = (np.arange(net.hidden) + 0.5) / net.hidden
    ordered = np.sort(mean)
    return np.interp(levels, (np.arange(len(ordered)) + 0.5) / len(ordered), ordered)


def build(name: str, channels: int, height: int, width: int, classes: int, **options: Any) -> StackedNet:
    """A network of this module, or the registry's of that name."""
    found = {"conv-fc": ConvFC, "relu-mlp": ReluMLP}.get(name)
    if found is None:
        return stacked.build(name, channels, height, width, classes, **options)
    made: StackedNet = found((height, width, channels), classes, **options)
    return made
