"""Convolution 3x3 (padding 2) followed by max-pooling 3/3 (padding 1), laid out for matrix products.

The image never changes during training, so its patches are laid out once: one column a convolution output,
ordered so that the nine outputs of a pooling window lie `count` apart. Pooling is then a maximum over an
outer axis of contiguous rows, and the convolutions of any number of models are one matrix product.

Output k of window w is column k*count + w. The windows come in four slabs, so that the 2/2 mean after
pooling is a sum of slabs: window s*cells + c is the s-th of the four windows of cell c, then come those of
an odd last row or column. The pooling padding takes up columns that hold no output; the outputs that no
window covers (the last row and column of a 28x28 image), which count in the normalisation only, are put in
those places and marked as not inside. Any place still free is a column of zeros, including its one for the
bias, which gives 0 after ReLU and adds nothing to a sum.
"""

import numpy as np
import torch
from numpy.typing import NDArray


class Windows:
    """The index tables of one image shape.

    pooled: rows and columns of windows; count: their number W; cells: cells of the 2/2 mean;
    order: int64 [W], row-major index of each window; positions: outputs of a convolution;
    columns [9W]: real is 1 where there is an output, inside 1 where it lies in its window;
    average: float32 [W, cells], the 2/2 mean.
    """

    def __init__(self, height: int, width: int, channels: int) -> None:
        rows, cols = height + 2, width + 2  # of the convolution's output
        self.pooled = ((rows - 1) // 3 + 1, (cols - 1) // 3 + 1)
        self.count = self.pooled[0] * self.pooled[1]
        self.cells = self.pooled[0] // 2 * (self.pooled[1] // 2)
        self.order = self._order()
        self.positions = rows * cols
        windowed = self._windowed(rows, cols)
        places = windowed.copy()
        rest = np.setdiff1d(np.arange(rows * cols), windowed)
        places[np.flatnonzero(windowed < 0)[: rest.size]] = rest
        self.real = torch.from_numpy((places >= 0).astype(np.float32))
        self.inside = torch.from_numpy((windowed >= 0).astype(np.float32))
        self.taps = torch.from_numpy(self._taps(places, height, width, channels))
        self.average = torch.zeros(self.count, self.cells)
        for slab in range(4):
            self.average[slab * self.cells : (slab + 1) * self.cells] = torch.eye(self.cells) / 4

    def _order(self) -> NDArray[np.int64]:
        high, wide = self.pooled[0] // 2, self.pooled[1] // 2
        grid = np.arange(self.count).reshape(self.pooled)
        even = grid[: 2 * high, : 2 * wide].reshape(high, 2, wide, 2)
        slabs = even.transpose(1, 3, 0, 2).ravel()
        return np.concatenate([slabs, np.setdiff1d(grid, slabs)])

    def _windowed(self, rows: int, cols: int) -> NDArray[np.int64]:
        """Which output (row*cols + col) each column holds for its window, -1 in the padding: int64 [9W]."""
        k, w = np.divmod(np.arange(9 * self.count), self.count)
        i = 3 * (self.order[w] // self.pooled[1]) - 1 + k // 3
        j = 3 * (self.order[w] % self.pooled[1]) - 1 + k % 3
        inside = (i >= 0) & (i < rows) & (j >= 0) & (j < cols)
        return np.where(inside, i * cols + j, -1)

    def _taps(self, places: NDArray[np.int64], height: int, width: int, channels: int) -> NDArray[np.int64]:
        """Index into the flattened image [h,w,c] (h*w*c = a zero) of each tap: int64 [9c, 9W]."""
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

    def columns(self, images: torch.Tensor) -> torch.Tensor:
        """Patches of float images [..., h, w, c]: [..., 9c+1, 9W], the last row the ones of the bias."""
        flat = images.flatten(-3)
        flat = torch.cat([flat, flat.new_zeros(*flat.shape[:-1], 1)], -1)
        ones = self.real.expand(*flat.shape[:-1], 1, -1)
        return torch.cat([flat[..., self.taps], ones], -2)

    def pool(self, maps: torch.Tensor) -> torch.Tensor:
        """Max-pooling of maps [..., 9W] -> [..., W]; the first of equal outputs takes the gradient."""
        low = torch.where(self.inside > 0, 0.0, -torch.inf)
        return (maps + low).unflatten(-1, (9, self.count)).max(-2).values
