"""Where secrets come from.

The method is called `draw`, so that a numpy generator cannot pass for a cryptographic source. Keys, masks,
shares, nonces and DP noise come from SystemRng; SeededRng exists for vectors and the simulator only, has
to be asked for by name and is out of the command line's reach.
"""

import hashlib
import os
from typing import Protocol


class Rng(Protocol):
    """A source of secret bytes; `label` names the purpose, so that adding a draw shifts no other."""

    def draw(self, size: int, label: str) -> bytes: ...


class SystemRng:
    """The operating system's generator."""

    def draw(self, size: int, label: str) -> bytes:
        return os.urandom(size)


class SeededRng:
    """Deterministic bytes for tests and vectors: SHAKE-256 of (seed, label, how often the label was drawn).

    Not a source of secrets: whoever knows the seed knows every byte.
    """

    def __init__(self, seed: int | bytes) -> None:
        self._seed = seed if isinstance(seed, bytes) else b"int:%d" % seed
        self._drawn: dict[str, int] = {}

    def draw(self, size: int, label: str) -> bytes:
        count = self._drawn.get(label, 0)
        self._drawn[label] = count + 1
        head = len(self._seed).to_bytes(4, "big") + self._seed + count.to_bytes(8, "big")
        return hashlib.shake_256(b"merveil/rng/1/seeded" + head + label.encode()).digest(size)

    def child(self, name: str) -> "SeededRng":
        """An independent stream, e.g. one a party."""
        return SeededRng(self._seed + b"/" + name.encode())
