"""When a client answers: real training on its clips, then its real session, measured in processor time.

Belongs to the honest side: an attack gets the times, the scorer who held how much. Processor time, so that
other programs on the machine do not speak in the figure; a server sees it behind the noise of a network.
"""

import time
from functools import lru_cache
from typing import Any

import numpy as np

from merveil.attacks.protocol import Field

FEW, MANY = 4, 32  # clips
STEPS = 3


@lru_cache(maxsize=1)
def _trainer() -> Any:
    """clips -> nothing: STEPS full-batch gradients of STSTNet on images of noise."""
    import torch

    from merveil.mer.models.stacked import build

    torch.set_num_threads(1)
    net = build("ststnet", 3, 28, 28, 3)
    params = torch.from_numpy(net.init(0)[None])

    def train(clips: int) -> None:
        x = np.random.default_rng(0).integers(0, 256, (clips, 28, 28, 3)).astype(np.uint8)
        ready = torch.from_numpy(net.prepare(x))
        rows = np.arange(clips, dtype=np.int64)[None]
        targets = torch.full((1, clips, 3), 1 / (3 * clips))
        for _ in range(STEPS):
            net.gradients(params, ready, rows, targets, None)

    train(FEW)
    return train


def answer_times(view: Field, rng: np.random.Generator) -> dict[int, float]:
    """Client -> seconds from the model to its frames, for a client of few and one of many clips.

    Which is which is drawn; the vector's weight coordinate holds the number, as in a weighted round.
    """
    view.max_weight = MANY
    first, second = rng.choice(np.arange(1, view.size + 1), 2, replace=False).tolist()
    held = {first: FEW, second: MANY}
    for i, clips in held.items():
        codes = view.vector(i, 1).copy()
        codes[-1] = clips
        view.plant(i, 1, codes)
    train, found = _trainer(), {}
    round_ = view.round(silent=set(range(1, view.size + 1)) - set(held)).begin(late=list(held))
    for i in sorted(held):
        began = time.process_time()
        train(held[i])
        round_.submit(i)
        found[i] = time.process_time() - began
    return found
