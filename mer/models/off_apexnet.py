"""OFF-ApexNet: two streams of two convolutions over u and v, then fully connected layers.

Source: Gan, Liong, Yau, Huang, Tan, "OFF-ApexNet on micro-expression recognition system", Signal Processing:
Image Communication 74, 2019; sizes as in the released PRICAI2021-Off-TANet code. 2,664,475 parameters at
28x28 and three classes, nearly all in the two layers of 1,024 units. head="gap" (merveil's own) keeps the
convolutions, 5,144 parameters, and puts one linear layer on the mean of each map in place of the rest.
"""

from typing import Any

import torch
from torch.nn import functional

from merveil.mer.errors import InputError
from merveil.mer.models.single import Pass, SingleNet, conv, linear
from merveil.mer.models.stacked import no_more

UNITS = 1024
DROPOUT = 0.5
STREAMS = {"u": 2, "v": 1}  # channel of [strain, v, u]


class OffApexNet(SingleNet):
    """The network; head "published" or "gap"."""

    name = "off-apexnet"

    def __init__(
        self, shape: tuple[int, int, int], classes: int, head: str = "published", reads: str = "flow"
    ) -> None:
        if head not in ("published", "gap"):
            raise InputError(f"off-apexnet: head is published or gap, not {head!r}")
        if min(shape[:2]) < 4:
            raise InputError(f"off-apexnet needs images of at least 4x4, not {shape[0]}x{shape[1]}")
        self.head = head
        tensors = [t for s in STREAMS for t in conv(f"{s}.conv1", 1, 6, 5) + conv(f"{s}.conv2", 6, 16, 5)]
        if head == "gap":
            tensors += linear("fc", 32, classes)
        else:
            cells = 32 * (shape[0] // 4) * (shape[1] // 4)
            tensors += linear("fc1", cells, UNITS) + linear("fc2", UNITS, UNITS)
            tensors += linear("fc3", UNITS, classes)
        super().__init__(shape, classes, tensors, reads=reads)

    def forward(self, run: Pass, x: torch.Tensor) -> torch.Tensor:
        """See SingleNet.forward."""
        streams = []
        for stream, channel in STREAMS.items():
            maps = x[:, channel : channel + 1]
            for layer in ("conv1", "conv2"):
                # ReLU after the pooling: the same on a quarter of the numbers.
                maps = torch.relu(functional.max_pool2d(run.conv(f"{stream}.{layer}", maps, 2), 2))
            streams.append(maps)
        maps = torch.cat(streams, 1)
        if self.head == "gap":
            return run.linear("fc", run.drop(maps.mean((2, 3)), DROPOUT))
        units = run.drop(torch.relu(run.linear("fc1", maps.flatten(1))), DROPOUT)
        return run.linear("fc3", run.drop(torch.relu(run.linear("fc2", units)), DROPOUT))


def make(shape: tuple[int, int, int], classes: int, options: dict[str, Any]) -> OffApexNet:
    """Registry hook."""
    no_more("off-apexnet", options, ("head", "input"))
    return OffApexNet(
        shape, classes, str(options.get("head", "published")), str(options.get("input", "flow"))
    )
