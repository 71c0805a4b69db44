"""Convolution 3x3 (padding 2) followed by max-pooling 3/3 (padding 1), laid out for matrix products.

The image never changes during training, so its patches are laid out once: one column a convolution output,
ordered so that the nine outputs of a pooling window lie `count` apart. Pooling is then a maximum over an
outer axis of contiguous rows, and the convolutions of any number of models are one matrix product.

Columns [0, 9*count): output k of window w at k*count + w. An output outside the image (the pooling padding)
is a column of zeros, including its one for the bias, so it gives 0 after ReLU and adds nothing to a sum.
Columns from 9*count: outputs that no window covers (the last row and column of a 28x28 image); they enter the
normalisation only. The rest, up to a multiple of count, is zero.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


class Windows:
    """The index tables of one image shape.

    pooled: rows and columns of windows; count: their number W; columns_count: N; positions: real outputs;
    real: float32 [N], 1 where a column is one; average: float32 [W, cells], the 2/2 mean after pooling.
    """

    def __init__(self, height: int, width: int, channels: int) -> None:
        rows, cols = height + 2, width + 2  # of the convolution's output
        self.pooled = ((rows - 1) // 3 + 1, (cols - 1) // 3 + 1)
        self.count = self.pooled[0] * self.pooled[1]
        self.positions = rows * cols
        places = self._places(rows, cols)
        self.columns_count = places.size
        self.real = torch.from_numpy((places >= 0).astype(np.float32))
        self.taps = torch.from_numpy(self._taps(places, height, width, channels))
        self.average = torch.from_numpy(self._average())

    def _places(self, rows: int, cols: int) -> NDArray[np.int64]:
        """Which output (row*cols + col, or -1) each column holds: int64 [N]."""
        k, w = np.divmod(np.arange(9 * self.count), self.count)
        i = 3 * (w // self.pooled[1]) - 1 + k // 3
        j = 3 * (w % self.pooled[1]) - 1 + k % 3
        inside = (i >= 0) & (i < rows) & (j >= 0) & (j < cols)
        windowed = np.where(inside, i * cols + j, -1)
        rest = np.setdiff1d(np.arange(rows * cols), windowed)
        tail = np.full(-(-rest.size // self.count) * self.count, -1)
        tail[: rest.size] = rest
        return np.concatenate([windowed, tail])

    def _taps(self, places: NDArray[np.int64], height: int, width: int, channels: int) -> NDArray[np.int64]:
        """Index into the flattened image [h,w,c] (h*w*c = a zero) of each tap: int64 [9c, N]."""
        i, j = np.divmod(places, width + 2)
        outside = height * width * channels
        taps = []
        for c in range(channels):
            for dy in range(3):
                for dx in range(3):
                    y, x = i + dy - 2, j + dx - 2
                    inside = (places >= 0) & (y >= 0) & (y < height) & (x >= 0) & (x < width)
                    taps.append(np.where(inside, (y * width + x) * channels + c, outside))
        return np.stack(taps)

    def _average(self) -> NDArray[np.float32]:
        """The mean over 2x2 windows as a matrix [W, cells]; an odd last row or column is left out."""
        high, wide = self.pooled[0] // 2, self.pooled[1] // 2
        matrix = np.zeros((self.count, high * wide), np.float32)
        for w in range(self.count):
            i, j = divmod(w, self.pooled[1])
            if i < 2 * high and j < 2 * wide:
                matrix[w, i // 2 * wide + j // 2] = 0.25
        return matrix

    def columns(self, images: torch.Tensor) -> torch.Tensor:
        """Patches of float images [..., h, w, c]: [..., 9c+1, N], the last row the ones of the bias."""
        flat = images.flatten(-3)
        flat = torch.cat([flat, flat.new_zeros(*flat.shape[:-1], 1)], -1)
        ones = self.real.expand(*flat.shape[:-1], 1, -1)
        return torch.cat([flat[..., self.taps], ones], -2)

    def pool(self, maps: torch.Tensor) -> torch.Tensor:
        """Max-pooling of maps [..., N] -> [..., W]; the first of equal outputs takes the gradient."""
        covered = 9 * self.count
        low: Any = torch.where(self.real[:covered] > 0, 0.0, -torch.inf)
        return (maps[..., :covered] + low).unflatten(-1, (9, self.count)).max(-2).values
