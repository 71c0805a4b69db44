"""Dual-Inception: two streams of two Inception blocks over u and v.

Source: Zhou, Mao, Xue, "Dual-Inception Network for Cross-Database Micro-Expression Recognition", FG 2019;
sizes as in the released PRICAI2021-Off-TANet code: 6 and 16 filters a path, 23,240 parameters in the streams,
6,449,867 with the fully connected head at 28x28 and three classes. head="gap" (merveil's own) puts one linear
layer on the mean of each map in its place: 23,627 parameters, a size that suits aggregation.

Also the backbone of FeatRef: Zhou, Mao, Huang, Zhang, Zhang, "Feature refinement: An expression-specific
feature learning and fusion method for micro-expression recognition", Pattern Recognition 122, 2022. It has no
public code; what is here follows its description: the same streams, a branch a class that attends to the
shared features, and a fusion of the branches. Its further losses on each branch are not built: the whole is
trained on the fused scores alone.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from merveil.mer.errors import InputError
from merveil.mer.models.single import Pass, SingleNet, Tensor, conv, linear
from merveil.mer.models.stacked import no_more

WIDTHS = (6, 16)  # filters of a path in the first and second block
UNITS = 1024
DROPOUT = 0.5
STREAMS = {"u": 2, "v": 1}  # channel of [strain, v, u]
SHARED = 2 * 4 * WIDTHS[1]  # maps of both streams
BRANCH = 64  # units of one class's branch in FeatRef


def stream_tensors() -> list[Tensor]:
    """The tensors of both streams."""
    found: list[Tensor] = []
    for stream in STREAMS:
        inputs = 1
        for block, width in enumerate(WIDTHS, 1):
            name = f"{stream}.block{block}"
            found += conv(f"{name}.a1", inputs, width, 1) + conv(f"{name}.a2", width, width, 5)
            found += conv(f"{name}.b1", inputs, width, 1) + conv(f"{name}.b2", width, width, 3)
            found += conv(f"{name}.c1", inputs, width, 1) + conv(f"{name}.d1", inputs, width, 1)
            inputs = 4 * width
    return found


def streams(run: Pass, x: torch.Tensor) -> torch.Tensor:
    """Maps [B,128,h//4,w//4] of both streams; channels lie last in memory, which takes half the time."""
    found = []
    for stream, channel in STREAMS.items():
        maps = x[:, channel : channel + 1].contiguous(memory_format=torch.channels_last)
        for block in (1, 2):
            maps = torch.relu(functional.max_pool2d(_inception(run, f"{stream}.block{block}", maps), 2))
        found.append(maps)
    return torch.cat(found, 1)


def _inception(run: Pass, name: str, x: torch.Tensor) -> torch.Tensor:
    """The four paths side by side; the ReLU follows the pooling, which is the same on fewer numbers."""
    wide = run.conv(f"{name}.a2", torch.relu(run.conv(f"{name}.a1", x)), 2)
    mid = run.conv(f"{name}.b2", torch.relu(run.conv(f"{name}.b1", x)), 1)
    pooled = run.conv(f"{name}.c1", functional.max_pool2d(x, 3, 1, 1))
    return torch.cat([wide, mid, pooled, run.conv(f"{name}.d1", x)], 1)


class DualInception(SingleNet):
    """The network; head "published" or "gap"."""

    name = "dual-inception"

    def __init__(
        self, shape: tuple[int, int, int], classes: int, head: str = "published", reads: str = "flow"
    ) -> None:
        if head not in ("published", "gap"):
            raise InputError(f"dual-inception: head is published or gap, not {head!r}")
        _check(self.name, shape)
        self.head = head
        tail: Sequence[Tensor] = linear("fc", SHARED, classes)
        if head == "published":
            cells = SHARED * (shape[0] // 4) * (shape[1] // 4)
            tail = linear("fc1", cells, UNITS) + linear("fc2", UNITS, classes)
        super().__init__(shape, classes, [*stream_tensors(), *tail], reads=reads)

    def forward(self, run: Pass, x: torch.Tensor) -> torch.Tensor:
        """See SingleNet.forward."""
        maps = streams(run, x)
        if self.head == "gap":
            return run.linear("fc", run.drop(maps.mean((2, 3)), DROPOUT))
        units = torch.relu(run.linear("fc1", run.drop(maps.flatten(1), DROPOUT)))
        return run.linear("fc2", run.drop(units, DROPOUT))


class FeatRef(SingleNet):
    """FeatRef's backbone: shared streams, one attending branch a class, fusion."""

    name = "featref"

    def __init__(self, shape: tuple[int, int, int], classes: int, reads: str = "flow") -> None:
        _check(self.name, shape)
        tensors = stream_tensors()
        for k in range(classes):
            tensors += linear(f"attend{k}", SHARED, SHARED) + linear(f"branch{k}", SHARED, BRANCH)
        super().__init__(shape, classes, [*tensors, *linear("fuse", classes * BRANCH, classes)], reads=reads)

    def forward(self, run: Pass, x: torch.Tensor) -> torch.Tensor:
        """See SingleNet.forward."""
        shared = run.drop(streams(run, x).mean((2, 3)), DROPOUT)
        branches = [
            torch.relu(run.linear(f"branch{k}", shared * torch.sigmoid(run.linear(f"attend{k}", shared))))
            for k in range(self.classes)
        ]
        return run.linear("fuse", run.drop(torch.cat(branches, 1), DROPOUT))


def _check(name: str, shape: tuple[int, int, int]) -> None:
    if min(shape[:2]) < 4:
        raise InputError(f"{name} needs images of at least 4x4, not {shape[0]}x{shape[1]}")


def make(shape: tuple[int, int, int], classes: int, options: dict[str, Any]) -> DualInception:
    """Registry hook of dual-inception."""
    no_more("dual-inception", options, ("head", "input"))
    head, reads = str(options.get("head", "published")), str(options.get("input", "flow"))
    return DualInception(shape, classes, head, reads)


def make_featref(shape: tuple[int, int, int], classes: int, options: dict[str, Any]) -> FeatRef:
    """Registry hook of featref."""
    no_more("featref", options, ("input",))
    return FeatRef(shape, classes, str(options.get("input", "flow")))
