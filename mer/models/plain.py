"""The oracle: STSTNet as a plain torch module, written down from the paper and the authors' code."""

import torch
from torch import nn

from merveil.mer.models.stacked import StackedNet


class PlainSTSTNet(nn.Module):
    """Input [n, channels, h, w] of 0-255; norm "batch" as published or "group"."""

    def __init__(
        self, norm: str, channels: int = 3, classes: int = 3, cells: int = 25, drop: float = 0.5
    ) -> None:
        super().__init__()
        for i, filters in enumerate((3, 5, 8), 1):
            setattr(self, f"conv{i}", nn.Conv2d(channels, filters, kernel_size=3, padding=2))
            kind = nn.BatchNorm2d(filters) if norm == "batch" else nn.GroupNorm(1, filters)
            setattr(self, f"norm{i}", kind)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=3, padding=1)
        self.dropout = nn.Dropout(drop)
        self.avgpool = nn.AvgPool2d(kernel_size=2, stride=2)
        self.fc = nn.Linear(16 * cells, classes)

    def forward(self, x: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
        """keep: [n, 16, 10, 10] dropout mask in place of the module's own, or None."""
        streams = []
        for i in (1, 2, 3):
            maps = self.relu(getattr(self, f"conv{i}")(x))
            streams.append(self.maxpool(getattr(self, f"norm{i}")(maps)))
        pooled = torch.cat(streams, 1)
        pooled = self.dropout(pooled) if keep is None else pooled * keep * 2
        return self.fc(self.avgpool(pooled).flatten(1))


def load(module: PlainSTSTNet, net: StackedNet, vector: torch.Tensor) -> None:
    """Copy one model's vector into the module."""
    state = module.state_dict()
    for name, value in net.views(vector[None]).items():
        assert state[name].shape == value.shape[1:]
        state[name].copy_(value[0])


def flat_grad(module: PlainSTSTNet, net: StackedNet) -> torch.Tensor:
    """The module's gradients in the stack's order."""
    named = dict(module.named_parameters())
    return torch.cat([named[name].grad.flatten() for name, _ in net.layout])
