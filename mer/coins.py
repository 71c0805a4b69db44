"""Training coins: batch order and dropout, from labelled counters instead of global generator state.

Every draw is a function of (seed, label, step) and a position, so a model's coins depend neither on which
other models are trained beside it nor on what was drawn before, and a resumed run draws the same ones.
These coins are no secret: keys, masks and noise never come from here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray


def stream(seed: int, label: str, step: int = 0) -> np.random.Philox:
    """The counter-based generator of one purpose: key from (seed, label), counter from step."""
    digest = blake2b(f"merveil/mer/coins/1|{label}|{seed}".encode(), digest_size=16).digest()
    key = np.frombuffer(digest, np.uint64)
    return np.random.Philox(key=key, counter=np.array([0, 0, step, 0], np.uint64))


def generator(seed: int, label: str, step: int = 0) -> np.random.Generator:
    """numpy's generator over `stream`."""
    return np.random.Generator(stream(seed, label, step))


def derive(seed: int, label: str) -> int:
    """A child seed, 63 bits, so that folds and clients never share coins."""
    digest = blake2b(f"merveil/mer/seed/1|{label}|{seed}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def keep_bits(source: np.random.Philox, clips: int, features: int) -> NDArray[np.uint8]:
    """Fair coins, eight to a byte: uint8 [clips, 8*ceil(features/64)], bit f of a row in little order."""
    words = -(-features // 64)
    return source.random_raw(clips * words).view(np.uint8).reshape(clips, words * 8)


def keep_mask(source: np.random.Philox, clips: int, features: int, rate: float) -> NDArray[np.bool_]:
    """Which features survive dropout at `rate` (rounded to 1/65536): bool [clips, features].

    Row b depends on b alone, not on how many clips follow it, so padding a batch changes nothing.
    """
    words = -(-features // 4)
    raw = source.random_raw(clips * words).view(np.uint16).reshape(clips, words * 4)
    return raw[:, :features] >= quantised(rate) * 65536


def quantised(rate: float) -> float:
    """The dropout rate as the 16-bit coins have it."""
    return round(rate * 65536) / 65536


@dataclass(frozen=True)
class Coins:
    """The coins of one training step for the models of a stack: one seed a model, one step counter each."""

    seeds: Sequence[int]
    steps: Sequence[int]

    def keep(self, label: str, rate: float, clips: int, features: int) -> NDArray[np.bool_]:
        """bool [M, clips, features], as `keep_mask` for each model."""
        masks = [
            keep_mask(stream(seed, label, step), clips, features, rate)
            for seed, step in zip(self.seeds, self.steps)
        ]
        return np.stack(masks)

    def uniform(self, label: str, clips: int, features: int) -> NDArray[np.float32]:
        """float32 [M, clips, features] in [0, 1), in steps of 2^-16; row b of a model depends on b alone."""
        words = -(-features // 4)
        drawn = [
            stream(seed, label, step).random_raw(clips * words).view(np.uint16).reshape(clips, -1)
            for seed, step in zip(self.seeds, self.steps)
        ]
        return np.stack(drawn)[..., :features].astype(np.float32) / np.float32(65536)

    def fair(self, label: str, clips: int, features: int) -> NDArray[np.uint8]:
        """Packed fair coins uint8 [M, clips, bytes], as `keep_bits` for each model."""
        return np.stack(
            [
                keep_bits(stream(seed, label, step), clips, features)
                for seed, step in zip(self.seeds, self.steps)
            ]
        )
