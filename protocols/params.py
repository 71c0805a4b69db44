"""Public parameters of a round, agreed beforehand and held against each party's own policy.

No session id and nothing secret is in here. The canonical encoding enters the context, so two parties with
different parameters share no key.
"""

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from merveil.protocols.errors import AbortCode, LocalError

_MAX_DIM = 2**31
_MAX_MODULUS_BITS = 62
_MAX_CLIP = 1e100


@dataclass(frozen=True)
class Params:
    """What all parties of a round agree on.

    scheme: registry name. cohort: clients invited, n. dim: values of one update. bits: signed grid codes lie
    in [-(2^(bits-1) - 1), 2^(bits-1) - 1]. clip: largest magnitude of a coordinate, update units.
    max_weight: 1 means unweighted; above, a client encodes x*w/max_weight and w rides as one more coordinate.
    threshold: fewest survivors, t. corrupt: clients that may collude, c. neighbours: k of a sparse graph, 0
    means complete.
    """

    scheme: str
    cohort: int
    dim: int
    bits: int = 16
    clip: float = 1.0
    max_weight: int = 1
    threshold: int = 1
    corrupt: int = 0
    neighbours: int = 0

    def __post_init__(self) -> None:
        self._canonical()
        if not (1 <= self.cohort <= 65_535 and 1 <= self.dim < _MAX_DIM):
            raise LocalError(
                f"cohort 1..65535 and dim 1..2^31, not {self.cohort} and {self.dim}", AbortCode.SHAPE_MISMATCH
            )
        if not 4 <= self.bits <= 40:
            raise LocalError(f"bits from 4 to 40, not {self.bits}", AbortCode.INPUT_RANGE)
        if (
            not 1 / _MAX_CLIP <= self.clip <= _MAX_CLIP
        ):  # NaN fails too; beyond, steps would over- or underflow
            raise LocalError(f"clip lies between 1e-100 and 1e100, not {self.clip}", AbortCode.INPUT_RANGE)
        if self.max_weight < 1:
            raise LocalError(f"max_weight must be at least 1, not {self.max_weight}", AbortCode.INPUT_RANGE)
        if not (1 <= self.threshold <= self.cohort and 0 <= self.corrupt < self.cohort):
            raise LocalError(
                f"threshold {self.threshold} and {self.corrupt} corrupt of {self.cohort} do not go together",
                AbortCode.PARAMS_BELOW_FLOOR,
            )
        if not 0 <= self.neighbours < self.cohort:
            raise LocalError(
                f"{self.neighbours} neighbours among {self.cohort}", AbortCode.PARAMS_BELOW_FLOOR
            )
        # Headroom: the sum of a full cohort, and of its weights, stays inside the modulus, always.
        if 2 * self.cohort * self.levels >= self.modulus or self.modulus_bits > _MAX_MODULUS_BITS:
            raise LocalError("the sum of a full cohort does not fit", AbortCode.MODULUS_TOO_SMALL)
        if self.cohort * self.max_weight >= self.modulus:
            raise LocalError(
                f"weights up to {self.max_weight} of {self.cohort} clients do not fit {self.modulus_bits} "
                "bits: raise bits or lower max_weight",
                AbortCode.MODULUS_TOO_SMALL,
            )

    def _canonical(self) -> None:
        """Python integers and a float, whatever numbers the caller had: equal parameters encode alike."""
        if not isinstance(self.scheme, str) or not self.scheme.isprintable() or not self.scheme:
            raise LocalError(f"a scheme's name is printable text, not {self.scheme!r}", AbortCode.INPUT_RANGE)
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name in ("scheme", "clip"):
                continue
            if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
                raise LocalError(f"{f.name} is an integer, not {value!r}", AbortCode.INPUT_RANGE)
            object.__setattr__(self, f.name, int(value))
        if isinstance(self.clip, bool) or not isinstance(self.clip, (int, float, np.integer, np.floating)):
            raise LocalError(f"clip is a number, not {self.clip!r}", AbortCode.INPUT_RANGE)
        object.__setattr__(self, "clip", float(self.clip))

    @property
    def levels(self) -> int:
        """Grid steps from 0 to clip, L."""
        return (1 << (self.bits - 1)) - 1

    @cached_property
    def modulus_bits(self) -> int:
        """m: codes are summed modulo 2^m, m = bits + ceil(log2 cohort)."""
        return self.bits + (self.cohort - 1).bit_length()

    @property
    def modulus(self) -> int:
        return 1 << self.modulus_bits

    @property
    def weighted(self) -> bool:
        return self.max_weight > 1

    @property
    def size(self) -> int:
        """Coordinates of one submitted vector: dim, and the weight where there is one."""
        return self.dim + int(self.weighted)

    @property
    def honest(self) -> int:
        """Fewest honest inputs in a sum that can be unmasked, whoever drops (docs/secagg.md)."""
        return self.threshold - self.corrupt + int(self.neighbours > 0)

    @cached_property
    def encoded(self) -> bytes:
        """Canonical encoding: `name=value` lines in field order; floats as hexadecimal."""
        parts = []
        for f in fields(self):
            value = getattr(self, f.name)
            parts.append(f"{f.name}={value.hex() if isinstance(value, float) else value}")
        return "\n".join(parts).encode()
