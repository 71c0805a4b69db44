"""Model state as one flat vector in a frozen layout.

Guarantee: the layout (names, shapes, order) is part of a run's identity; a vector of another layout is
refused instead of being cut to fit. Tensors stop here: what goes on to the schemes is numpy.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from merveil.mer.errors import InputError

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Layout:
    """The flat order of a model's tensors: (name, shape) of each, as the network lists them."""

    entries: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def of(cls, entries: Sequence[tuple[str, Sequence[int]]]) -> "Layout":
        return cls(tuple((str(name), tuple(int(side) for side in shape)) for name, shape in entries))

    @property
    def size(self) -> int:
        """Numbers in the flat vector."""
        return sum(_count(shape) for _, shape in self.entries)

    @property
    def sha256(self) -> str:
        """Hash that model files, checkpoints and protocol contexts carry."""
        return hashlib.sha256(json.dumps(self.entries, separators=(",", ":")).encode()).hexdigest()

    def flatten(self, state: Mapping[str, NDArray[np.generic]]) -> Floats:
        """State dict -> float32 [size]. InputError names the first missing, extra or misshapen tensor."""
        known = dict(self.entries)
        for name in state:
            if name not in known:
                raise InputError(f"the model state has a tensor {name!r} that this layout does not know")
        parts = []
        for name, shape in self.entries:
            if name not in state:
                raise InputError(f"the model state lacks the tensor {name!r}")
            if tuple(state[name].shape) != shape:
                raise InputError(f"tensor {name!r} has shape {tuple(state[name].shape)}, not {shape}")
            parts.append(np.asarray(state[name], dtype=np.float32).reshape(-1))
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def unflatten(self, flat: NDArray[np.generic]) -> dict[str, Floats]:
        """float [size] -> state dict of float32 copies. InputError where the length is another."""
        if flat.shape != (self.size,):
            raise InputError(f"the vector has shape {flat.shape}, the layout needs ({self.size},)")
        state, at = {}, 0
        for name, shape in self.entries:
            stop = at + _count(shape)
            state[name] = np.array(flat[at:stop], dtype=np.float32).reshape(shape)
            at = stop
        return state


def _count(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64)) if shape else 1
