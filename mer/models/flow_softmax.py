"""flow-softmax: softmax regression on mirror-even 4x4 block means of a clip's normalised flow; 75 numbers.

Made for differential privacy, whose noise grows with the square root of the size: nothing is trained that a
clip and its mirror image would cancel. Mirroring left and right swaps columns and negates u, the last of
[strain, v, u]; a linear score averaged over both sides sees only the part of the means that stays the same:
the half-sums of strain and v and the half-differences of u, 24 of 48 numbers. They are taken at unit mean
square, so every clip is equally strong. No coin, no augmentation: a gradient is a function of the clips.
"""

import math
from typing import Any

import numpy as np
import torch

from merveil.mer.coins import Coins
from merveil.mer.errors import InputError
from merveil.mer.models.means import MeansNet, block_means
from merveil.mer.models.stacked import Floats, no_more

SIDE = 4  # block means a side, unless told otherwise
LEAST, MOST = 2, 14


def inputs(side: int) -> int:
    """How many mirror-even block means a clip has: two even channels and an odd one."""
    return side * (2 * ((side + 1) // 2) + side // 2)


class FlowSoftmax(MeansNet):
    """The stack; `side` block means a side."""

    name = "flow-softmax"

    def __init__(self, shape: tuple[int, int, int], classes: int, side: int = SIDE) -> None:
        if not LEAST <= side <= MOST:
            raise InputError(f"flow-softmax: side lies in {LEAST}..{MOST}, not {side}")
        if shape[2] != 3 or min(shape[:2]) < side:
            raise InputError(
                f"flow-softmax reads [strain, v, u] images of at least {side}x{side}, not {shape}"
            )
        self.side = side
        super().__init__(
            shape, classes, (("last.weight", (classes, inputs(side))), ("last.bias", (classes,)))
        )

    def init(self, seed: int) -> Floats:
        """Zeros, whatever the seed: the loss is convex."""
        return np.zeros(self.size, np.float32)

    def logits(
        self, params: torch.Tensor, x: torch.Tensor, *, train: bool, generator: Coins | None = None
    ) -> torch.Tensor:
        """See StackedNet.logits; the same in training and evaluation."""
        parts, rows = self.views(params), self._rows(params, x)
        return torch.baddbmm(parts["last.bias"][:, None], rows, parts["last.weight"].transpose(1, 2))

    def _means(self, images: torch.Tensor) -> torch.Tensor:
        """[..., h, w, 3] -> [..., inputs(side)], of unit mean square."""
        blocks = block_means(images, self.side)
        swapped = blocks.flip(-1)
        left, middle = self.side // 2, (self.side + 1) // 2
        even = (blocks + swapped)[..., :2, :, :middle] / 2
        odd = (blocks - swapped)[..., 2:, :, :left] / 2
        # A column that stands for two counts twice in the length; the middle one stands for itself.
        twice = torch.tensor([math.sqrt(2.0)] * left + [1.0] * (middle - left))
        parts = [(even * twice).flatten(-3), (odd * twice[:left]).flatten(-3)]
        flat = torch.cat(parts, -1).reshape(*images.shape[:-3], inputs(self.side))
        return flat / flat.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-6)


def make(shape: tuple[int, int, int], classes: int, options: dict[str, Any]) -> FlowSoftmax:
    """Registry hook."""
    no_more("flow-softmax", options, ("side",))
    side = options.get("side", SIDE)
    if not str(side).isdecimal():
        raise InputError(f"flow-softmax: side is a whole number, not {side!r}")
    return FlowSoftmax(shape, classes, int(side))
