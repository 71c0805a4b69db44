"""compact-transformer: two attention blocks over sixteen patches of the flow; merveil's own small form.

Published transformers for this task read a 28x28 flow image through patches as well (HTNet: Wang, Zhang,
Luo, Luo, Neurocomputing 602, 2024, 140 million parameters); this one is of a size that suits 300 clips and
secure sums: 4x4 patches of 7x7x3, 48 numbers a patch, a learnt place, two pre-norm blocks with four heads,
mean and maximum over patches. LayerNorm only. 46,179 parameters at 28x28 and three classes.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from merveil.mer.errors import InputError
from merveil.mer.models.single import Pass, SingleNet, Tensor, linear, norm
from merveil.mer.models.stacked import no_more

GRID, WIDTH, HEADS, BLOCKS = 4, 48, 4, 2
DROPOUT = 0.1  # of both paths of a block; a clip skips a whole block's path as often


class CompactTransformer(SingleNet):
    """The network."""

    name = "compact-transformer"

    def __init__(self, shape: tuple[int, int, int], classes: int, reads: str = "flow") -> None:
        if shape[0] % GRID or shape[1] % GRID:
            raise InputError(f"compact-transformer needs sides that are multiples of {GRID}, not {shape[:2]}")
        self.patch = (shape[0] // GRID, shape[1] // GRID)
        tensors = linear("embed", shape[2] * math.prod(self.patch), WIDTH)
        tensors += [Tensor("place", (GRID * GRID, WIDTH), WIDTH)]
        for b in range(BLOCKS):
            tensors += norm(f"block{b}.norm1", WIDTH) + linear(f"block{b}.qkv", WIDTH, 3 * WIDTH)
            tensors += linear(f"block{b}.out", WIDTH, WIDTH) + norm(f"block{b}.norm2", WIDTH)
            tensors += linear(f"block{b}.up", WIDTH, 2 * WIDTH) + linear(f"block{b}.down", 2 * WIDTH, WIDTH)
        tensors += norm("norm", WIDTH) + linear("fc", 2 * WIDTH, classes)
        super().__init__(shape, classes, tensors, reads=reads)

    def draw(self, draw: np.random.Generator, tensor: Tensor) -> NDArray[Any]:
        """Places normal with sd .02; the rest as usual."""
        return draw.normal(0, 0.02, tensor.shape) if tensor.name == "place" else super().draw(draw, tensor)

    def forward(self, run: Pass, x: torch.Tensor) -> torch.Tensor:
        """See SingleNet.forward."""
        high, wide = self.patch
        tiles = x.unflatten(2, (GRID, high)).unflatten(4, (GRID, wide))  # [B,c,4,high,4,wide]
        tokens = run.linear("embed", tiles.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2))
        tokens = tokens + run.parts["place"]
        for b in range(BLOCKS):
            for path in (self._attend, self._mix):
                change = run.drop(path(run, f"block{b}", tokens), DROPOUT)
                tokens = tokens + run.drop(change, DROPOUT, shared=1)
        tokens = self._norm(run, "norm", tokens)
        return run.linear("fc", torch.cat([tokens.mean(1), tokens.amax(1)], 1))

    def _attend(self, run: Pass, name: str, tokens: torch.Tensor) -> torch.Tensor:
        mixed = run.linear(f"{name}.qkv", self._norm(run, f"{name}.norm1", tokens))
        q, k, v = mixed.unflatten(-1, (3, HEADS, WIDTH // HEADS)).permute(2, 0, 3, 1, 4)
        weight = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(WIDTH // HEADS), -1)
        return run.linear(f"{name}.out", (weight @ v).transpose(1, 2).flatten(2))

    def _mix(self, run: Pass, name: str, tokens: torch.Tensor) -> torch.Tensor:
        units = functional.gelu(run.linear(f"{name}.up", self._norm(run, f"{name}.norm2", tokens)))
        return run.linear(f"{name}.down", units)

    def _norm(self, run: Pass, name: str, tokens: torch.Tensor) -> torch.Tensor:
        weight, bias = run.parts[f"{name}.weight"], run.parts[f"{name}.bias"]
        return functional.layer_norm(tokens, (WIDTH,), weight, bias)


def make(shape: tuple[int, int, int], classes: int, options: dict[str, Any]) -> CompactTransformer:
    """Registry hook."""
    no_more("compact-transformer", options, ("input",))
    return CompactTransformer(shape, classes, str(options.get("input", "flow")))
