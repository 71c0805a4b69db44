"""The training seed's randomness: initialisation, batch order, dropout, rounding coins, simulated dropouts.

Guarantee: every draw is a function of (seed, labels) alone, so adding a draw shifts no other, a resume
continues as if nothing had happened, and all schemes of one seed see the same coins.
Nothing here is a secret and nothing here reaches `merveil.protocols`: keys, masks and shares come from the
operating system, in there.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

_DOMAIN = b"merveil/fl/1/coins"

Label = str | int


def digest(seed: int, *labels: Label) -> bytes:
    """SHA-256 over the domain tag, the seed and the length-prefixed labels; 32 bytes."""
    state = hashlib.sha256()
    for part in (_DOMAIN, str(int(seed)).encode(), *(_tagged(label) for label in labels)):
        state.update(len(part).to_bytes(4, "big"))
        state.update(part)
    return state.digest()


def derive(seed: int, *labels: Label) -> int:
    """A non-negative integer below 2**63 for a generator of another library."""
    return int.from_bytes(digest(seed, *labels)[:8], "big") >> 1


def stream(seed: int, *labels: Label) -> np.random.Generator:
    """A Philox generator keyed by (seed, labels)."""
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest(seed, *labels)[:16], "big")))


def rounding(seed: int, size: int, *labels: Label) -> NDArray[np.float64]:
    """Coins of stochastic rounding: float64 [size] in [0, 1)."""
    return stream(seed, "rounding", *labels).random(size)


def _tagged(label: Label) -> bytes:
    """Integers and strings of the same spelling are different labels."""
    return (b"i" if isinstance(label, int) else b"s") + str(label).encode()
