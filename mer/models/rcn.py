"""RCN-A: a convolution, a recurrent convolutional block, and attention from the classifier's own weights.

Source: Xia, Peng, Khor, Feng, Zhao, "Revealing the Invisible with Model and Data Shrinking for
Composite-Database Micro-Expression Recognition", IEEE TIP 29, 2020, and the authors' code
(ParameterFreeRCNs-MicroExpressionRec), in its compact form of 32 filters and 5x5 cells: 15,331 parameters.
norm="batch" is the published form; the default "group" takes one group a clip in its place, with as many
parameters and no statistics of other clips.
"""

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from merveil.mer.errors import InputError
from merveil.mer.models.single import Pass, SingleNet, Tensor, conv, linear, norm
from merveil.mer.models.stacked import no_more

FILTERS, CELLS = 32, 5
DROPOUT = 0.5
REPEATS = 2  # of the shared convolution


class RCN(SingleNet):
    """The network; `norm` group or batch, `filters` 32."""

    name = "rcn"

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        layer: str = "group",
        filters: int = FILTERS,
        reads: str = "flow",
    ) -> None:
        if layer not in ("group", "batch"):
            raise InputError(f"rcn: norm is 'group' or 'batch', not {layer!r}")
        if min(shape[:2]) < 12 or filters < 1:
            raise InputError(f"rcn needs images of at least 12x12 and a filter, not {shape[0]}x{shape[1]}")
        tensors = [
            *conv("first", shape[2], filters, 5),
            *norm("norm1", filters),
            *conv("across", filters, filters, 1),
            *norm("norm2", filters),
            *conv("again", filters, filters, 3),
            *norm("norm3", filters),
            *linear("fc", CELLS * CELLS * filters, classes),
        ]
        norms = [(f"norm{i}", filters) for i in (1, 2, 3)] if layer == "batch" else []
        super().__init__(shape, classes, tensors, reads=reads, batch_norms=norms)

    def draw(self, draw: np.random.Generator, tensor: Tensor) -> NDArray[Any]:
        """Convolutions normal with sd sqrt(2/fan-out), the classifier with sd .01, as published."""
        if tensor.name == "fc.weight":
            return draw.normal(0, 0.01, tensor.shape)
        if len(tensor.shape) == 4:
            out = tensor.shape[0] * tensor.shape[2] * tensor.shape[3]
            return draw.normal(0, math.sqrt(2 / out), tensor.shape)
        return np.zeros(tensor.shape) if tensor.name == "fc.bias" else super().draw(draw, tensor)

    def forward(self, run: Pass, x: torch.Tensor) -> torch.Tensor:
        """See SingleNet.forward."""
        # ReLU after the pooling: the same on a quarter of the numbers.
        maps = torch.relu(functional.max_pool2d(run.norm("norm1", run.conv("first", x)), 2))
        maps = run.drop(maps, DROPOUT)
        attention = _attention(_cells(maps), run.parts["fc.weight"])
        state = torch.relu(run.norm("norm2", run.conv("across", maps)))
        for _ in range(REPEATS):
            state = torch.relu(run.norm("norm3", run.conv("again", maps + state, 1)))
        state = run.drop(functional.max_pool2d(state, 2), DROPOUT)
        return run.linear("fc", (_cells(state) * attention).flatten(1))


def _cells(maps: torch.Tensor) -> torch.Tensor:
    """Means of 5x5 cells, torch's adaptive average pooling as two products, which ONNX has."""
    rows, columns = (_windows(int(side)) for side in maps.shape[-2:])
    return rows @ maps @ columns.T


@cache
def _windows(side: int) -> torch.Tensor:
    """[5, side]: cell i averages positions floor(i side / 5) up to ceil((i + 1) side / 5)."""
    found = torch.zeros(CELLS, side)
    for i in range(CELLS):
        low, high = i * side // CELLS, -(-(i + 1) * side // CELLS)
        found[i, low:high] = 1 / (high - low)
    return found


def _attention(cells: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """[B,1,5,5] in 0..1 from cells [B,F,5,5]: each class's map of evidence, min-max scaled, averaged."""
    evidence = torch.einsum("bfhw,kfhw->bkhw", cells, weight.view(len(weight), *cells.shape[1:]))
    evidence = evidence - evidence.amin((2, 3), keepdim=True)
    return (evidence / evidence.amax((2, 3), keepdim=True).clamp_min(1e-12)).mean(1, keepdim=True)


def make(shape: tuple[int, int, int], classes: int, options: dict[str, Any]) -> RCN:
    """Registry hook."""
    no_more("rcn", options, ("norm", "filters", "input"))
    return RCN(
        shape,
        classes,
        str(options.get("norm", "group")),
        int(options.get("filters", FILTERS)),
        str(options.get("input", "flow")),
    )
