"""flow-mlp: a two-layer perceptron on 14x14 block means of a clip's normalised flow image.

588 inputs, 64 units with LayerNorm, 38 thousand parameters. A clip is normalised by itself: each channel
minus its median (the published byte maps put zero flow anywhere), divided by its root mean square, cut at 4.
Mirroring left and right negates u, the last of [strain, v, u]; it is a coin of each clip and step in
training, and the average of both sides at test. In training each clip is also shifted, stretched and made
stronger or weaker anew at each step, unless augment is false.
"""

import math
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from merveil.mer.coins import Coins, generator
from merveil.mer.errors import InputError
from merveil.mer.models.inputs import channels_first
from merveil.mer.models.means import MeansNet, block_means
from merveil.mer.models.stacked import Floats, no_more

SIDE = 14  # block means a side
DROP_INPUT, DROP_HIDDEN = 0.2, 0.5
SHIFT, STRETCH, GAIN = 1.0, 0.1, 0.2  # augmentation: cells of the 14x14 means, share, share
MOST_TURN = 45.0  # degrees


class FlowMLP(MeansNet):
    """The stack; `hidden` units. augment: each clip is shifted, stretched and scaled anew at each step.

    rotate: degrees by which it is turned at most as well, with its flow vectors; needs augment.
    """

    name = "flow-mlp"

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        hidden: int = 64,
        augment: bool = True,
        rotate: float = 0.0,
    ) -> None:
        if shape[2] != 3 or min(shape[:2]) < SIDE:
            raise InputError(f"flow-mlp reads [strain, v, u] images of at least {SIDE}x{SIDE}, not {shape}")
        if hidden < 1:
            raise InputError("flow-mlp: hidden is at least 1 unit")
        if not 0 <= rotate <= MOST_TURN or (rotate and not augment):
            raise InputError(f"flow-mlp: rotate lies in 0..{MOST_TURN:g} degrees and needs augment=true")
        self.hidden, self.inputs, self.augment, self.rotate = hidden, SIDE * SIDE * 3, augment, rotate
        layout = (
            ("first.weight", (hidden, self.inputs)),
            ("first.bias", (hidden,)),
            ("norm.weight", (hidden,)),
            ("norm.bias", (hidden,)),
            ("last.weight", (classes, hidden)),
            ("last.bias", (classes,)),
        )
        super().__init__(shape, classes, layout)

    def init(self, seed: int) -> Floats:
        """Weights and biases uniform within 1/sqrt(fan-in), torch's default; the norm at 1 and 0."""
        draw, parts = generator(seed, "init"), []
        for name, shape in self.layout:
            if name.startswith("norm"):
                parts.append(np.full(shape, float(name == "norm.weight"), np.float32))
            else:
                fan = self.inputs if name.startswith("first") else self.hidden
                parts.append(draw.uniform(-1, 1, shape).astype(np.float32) / np.float32(math.sqrt(fan)))
        return np.concatenate([p.ravel() for p in parts])

    def logits(
        self, params: torch.Tensor, x: torch.Tensor, *, train: bool, generator: Coins | None = None
    ) -> torch.Tensor:
        """See StackedNet.logits; in evaluation the mean of the scores of the clip and its mirror image."""
        x = self._rows(params, x)
        if not train:
            return (self._scores(params, x, None) + self._scores(params, self._mirrored(x), None)) / 2
        if generator is not None:
            flip = torch.from_numpy(generator.keep("mirror", 0.5, x.shape[1], 1))
            x = torch.where(flip, self._mirrored(x), x)
            if self.augment:
                x = _turned(x, generator, self.rotate) if self.rotate else _moved(x, generator)
        return self._scores(params, x, generator)

    def _scores(self, params: torch.Tensor, x: torch.Tensor, coins: Coins | None) -> torch.Tensor:
        parts = self.views(params)
        if coins is not None:
            x = _dropped(x, coins, "input", DROP_INPUT)
        units = torch.baddbmm(parts["first.bias"][:, None], x, parts["first.weight"].transpose(1, 2))
        units = functional.layer_norm(units, (self.hidden,))
        units = functional.gelu(units * parts["norm.weight"][:, None] + parts["norm.bias"][:, None])
        if coins is not None:
            units = _dropped(units, coins, "hidden", DROP_HIDDEN)
        return torch.baddbmm(parts["last.bias"][:, None], units, parts["last.weight"].transpose(1, 2))

    def _means(self, images: torch.Tensor) -> torch.Tensor:
        """[..., h, w, 3] -> [..., 588], the channels of a cell side by side."""
        blocks = block_means(images, SIDE)
        return blocks.transpose(-3, -2).transpose(-2, -1).reshape(*images.shape[:-3], self.inputs)

    def _mirrored(self, x: torch.Tensor) -> torch.Tensor:
        signs = torch.tensor([1.0, 1.0, -1.0])
        return (x.unflatten(-1, (SIDE, SIDE, 3)).flip(-2) * signs).flatten(-3)


def _moved(x: torch.Tensor, coins: Coins) -> torch.Tensor:
    """Clips [M,B,588] shifted by up to a cell, stretched by 10 % and made stronger or weaker by 20 %.

    Linear interpolation on the block means, the border repeated; the flow's vectors keep their direction.
    """
    draws = 2 * torch.from_numpy(coins.uniform("augment", x.shape[1], 5)) - 1  # [M,B,5]
    cells, middle = torch.arange(SIDE, dtype=torch.float32), (SIDE - 1) / 2
    tents = []
    for axis in (0, 1):
        scale, shift = 1 + STRETCH * draws[..., axis, None], SHIFT * draws[..., 2 + axis, None]
        at = ((cells - middle) * scale + middle + shift).clamp(0, SIDE - 1)  # [M,B,14]
        tents.append((1 - (at[..., None] - cells).abs()).clamp_min(0))  # [M,B,14,14]
    rows = tents[0] @ x.unflatten(-1, (SIDE, SIDE * 3))  # [M,B,14,42]
    columns = tents[1][:, :, None] @ rows.unflatten(-1, (SIDE, 3))  # [M,B,14,14,3]
    return (columns * (1 + GAIN * draws[..., 4, None, None, None])).flatten(-3)


def _turned(x: torch.Tensor, coins: Coins, degrees: float) -> torch.Tensor:
    """As `_moved`, and turned about the centre by up to `degrees` either way, [M,B,588].

    The picture turns and its vectors (u to the right, v down) with it; one bilinear reading in all.
    """
    draws = 2 * torch.from_numpy(coins.uniform("augment", x.shape[1], 6)) - 1  # the first five are _moved's
    draws = draws.flatten(0, 1)[..., None, None]  # [N,6,1,1]
    angle = math.radians(degrees) * draws[:, 5]
    cos, sin = angle.cos(), angle.sin()
    down, right = torch.meshgrid(torch.linspace(-1, 1, SIDE), torch.linspace(-1, 1, SIDE), indexing="ij")
    reach = 2 * SHIFT / (SIDE - 1)  # a cell in units of half the side
    rows = (cos * down - sin * right) * (1 + STRETCH * draws[:, 0]) + reach * draws[:, 2]
    columns = (cos * right + sin * down) * (1 + STRETCH * draws[:, 1]) + reach * draws[:, 3]
    maps = channels_first(x.flatten(0, 1).unflatten(-1, (SIDE, SIDE, 3)))
    read = functional.grid_sample(
        maps, torch.stack([columns, rows], -1), padding_mode="border", align_corners=True
    )
    strain, v, u = read.unbind(1)
    turned = torch.stack([strain, sin * u + cos * v, cos * u - sin * v], -1)
    return (turned * (1 + GAIN * draws[:, 4, ..., None])).reshape(x.shape)


def _dropped(x: torch.Tensor, coins: Coins, label: str, rate: float) -> torch.Tensor:
    keep = torch.from_numpy(coins.keep(label, rate, x.shape[1], x.shape[2]))
    return x * keep / (1 - rate)


def make(shape: tuple[int, int, int], classes: int, options: dict[str, Any]) -> FlowMLP:
    """Registry hook."""
    no_more("flow-mlp", options, ("hidden", "augment", "rotate"))
    hidden, augment = int(options.get("hidden", 64)), options.get("augment", True)
    if not isinstance(augment, bool):
        raise InputError(f"flow-mlp: augment is true or false, not {augment!r}")
    return FlowMLP(shape, classes, hidden, augment, float(options.get("rotate", 0)))
