"""ensemble: the mean of the probabilities of exact-ridge and flow-mlp, half each.

The halves are a convention and were not chosen; both parts are trained as they are alone.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

PARTS = ("exact-ridge", "flow-mlp")


def mixed(found: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The mean of probabilities [n, K] of equal shape; NaN where any part has NaN."""
    return np.asarray(np.mean(np.stack(found), 0))
