"""What networks on block means of the normalised flow do alike: images in, one row of means a clip."""

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from merveil.mer.models.inputs import channels_first, flow_normalised
from merveil.mer.models.stacked import Floats, StackedNet


def block_means(images: torch.Tensor, side: int) -> torch.Tensor:
    """[..., h, w, c] -> [N, c, side, side], N of all leading axes: means of each normalised clip."""
    maps = channels_first(flow_normalised(images))
    return functional.adaptive_avg_pool2d(maps.flatten(0, -4) if maps.ndim > 4 else maps, side)


class MeansNet(StackedNet):
    """A stack whose prepared clip is one row of numbers."""

    @abstractmethod
    def _means(self, images: torch.Tensor) -> torch.Tensor:
        """[..., h, w, 3] -> [..., inputs]; differentiable, except in the place of the median."""

    def prepare(self, x: NDArray[Any]) -> Floats:
        """uint8 or float [n,h,w,3] -> float32 [n, inputs]."""
        self.check(x)
        return self._means(torch.from_numpy(x.astype(np.float32))).numpy()

    def _rows(self, params: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Prepared clips or images, of each model or one for all, as rows [M,B,inputs] of each model."""
        if x.shape[-3:] == self.shape:
            x = self._means(x)
        return x.expand(len(params), *x.shape) if x.ndim == 2 else x
