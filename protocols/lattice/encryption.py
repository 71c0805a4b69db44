"""One masked vector and the sum of many: c = a s + e + E-free digits, opened with the sum of the keys.

A key masks once. Its secret is a polynomial with small coefficients; the masks of all coefficients follow
from it and from the public polynomials of the context.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.protocols.codec import Codes
from merveil.protocols.errors import AbortCode, Aborted, LocalError
from merveil.protocols.lattice import kernels, ring
from merveil.protocols.lattice.constants import CHECK, LANES, SIGMA
from merveil.protocols.lattice.params import Digits, LatticeParams, Layout, lane_words
from merveil.protocols.lattice.ring import Words
from merveil.protocols.lattice.sampling import fresh, gaussians, public
from merveil.protocols.rng import Rng, SystemRng

Secret = NDArray[np.int64]


class Key:
    """A short key: N discrete Gaussians. It masks one vector and is then gone."""

    def __init__(self, secret: Secret) -> None:
        self._secret: Secret | None = secret

    @classmethod
    def draw(cls, degree: int, rng: Rng) -> "Key":
        return cls(gaussians(fresh(rng, "lattice/secret"), degree).astype(np.int64))

    def __repr__(self) -> str:
        return f"Key({'unused' if self._secret is not None else 'used'})"

    def peek(self) -> Secret:
        """The coefficients, to be shared before use; LocalError KEY_REUSE afterwards."""
        if self._secret is None:
            raise LocalError("this key has masked a vector already", AbortCode.KEY_REUSE)
        return self._secret

    def take(self) -> Secret:
        """The coefficients, once."""
        secret = self.peek()
        self._secret = None
        return secret


def to_digits(params: LatticeParams, codes: Codes) -> tuple[Codes, int]:
    """(values, offset): digit i of the vector is values[i] + offset. Not a copy where codes are digits."""
    d, dim = params.digits, params.dim
    if d.limbs == 1 and not params.weighted:
        return codes, params.levels
    out, rest = np.empty(d.total, dtype=np.int64), codes[:dim] + params.levels
    for i in range(d.limbs):
        out[i * dim : (i + 1) * dim] = rest % d.base
        rest //= d.base
    weight = int(codes[dim]) if params.weighted else 0
    for i in range(d.weight):
        weight, out[d.limbs * dim + i] = divmod(weight, d.base)
    return out, 0


def from_digits(params: LatticeParams, digits: Codes, survivors: int) -> Codes:
    """The signed sum, shape (size,), of summed digits, shape (total,)."""
    d, dim = params.digits, params.dim
    out = np.zeros(params.size, dtype=np.int64)
    for i in reversed(range(d.limbs)):
        out[:dim] *= d.base
        out[:dim] += digits[i * dim : (i + 1) * dim]
    out[:dim] -= survivors * params.levels
    for i in reversed(range(d.weight)):
        out[dim] = out[dim] * d.base + digits[d.limbs * dim + i]
    return out


def _each(digits: Digits, layout: Layout) -> int:
    """Digits that are gathered into one 64-bit word before the residues are taken."""
    limit, each = min(layout.primes) << 31, 1
    while each < layout.values and digits.radix ** (each + 1) <= limit:
        each += 1
    return each


def mask(params: LatticeParams, context: bytes, key: Key, codes: Codes, rng: Rng) -> bytes:
    """The ciphertext of one vector, in wire form; uses the key up.

    context: 32 bytes, shared by the cohort and never used again. codes: shape (size,), checked.
    """
    layout, secret = params.layout, key.take()
    each = _each(params.digits, layout)
    values, offset = to_digits(params, codes)
    message = np.zeros((-(-layout.values // each), layout.count), dtype=np.uint64)
    kernels.gather(message, values, offset, params.digits.radix, each)
    error = gaussians(fresh(rng, "lattice/error"), layout.count)
    parts = []
    for row, (p, bits) in enumerate(zip(layout.primes, layout.bits)):
        x = public(context, layout.degree, layout.groups, row, p)
        ring.multiply(x, ring.secret_factors(layout.degree, p, secret), layout.degree, p)
        x = x[: layout.count]
        step = pow(params.digits.radix, each, p) * 2**32 % p
        kernels.add_message(x, message, error, p, pow(p, -1, 2**32), step, layout.step * 2**64 % p)
        parts.append(pack(x, bits))
    return b"".join(parts)


def pack(x: Words, bits: int) -> Any:
    """Residues in wire form, as a buffer."""
    out = np.zeros(LANES * lane_words(x.size // LANES, bits), dtype="<u4")
    kernels.pack_lanes(out, x, bits, LANES)
    return out.data.cast("B")


def residues(layout: Layout, data: bytes | memoryview) -> list[Words]:
    """The packed residues of each prime, flat, as views of a ciphertext of the right length."""
    found, at, positions = [], 0, layout.count // LANES
    for bits in layout.bits:
        words = LANES * lane_words(positions, bits)
        part = np.frombuffer(data, dtype="<u4", count=words, offset=at)
        found.append(np.require(part, requirements="A"))
        at += 4 * words
    return found


def canonical(layout: Layout, parts: list[Words]) -> bool:
    """Whether every residue lies below its prime and all padding is zero."""
    positions = layout.count // LANES
    for p, bits, part in zip(layout.primes, layout.bits, parts):
        top, spare = kernels.largest_lanes(part, positions, bits, LANES)
        if top >= p or spare:
            return False
    return True


class Total:
    """The running sum of ciphertexts: one word a residue, however many are added."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.rows = np.zeros((len(layout.primes), layout.count), dtype=np.uint32)

    def add(self, parts: list[Words]) -> None:
        """Add a ciphertext that is `canonical`."""
        for row, part, p, bits in zip(self.rows, parts, self._layout.primes, self._layout.bits):
            kernels.add_lanes(row, part, bits, p, LANES)

    def dump(self) -> bytes:
        return self.rows.astype("<u4").tobytes()

    def load(self, data: bytes) -> None:
        """Inverse of `dump`. ValueError for another length or a residue out of range."""
        rows = np.frombuffer(data, dtype="<u4").reshape(self.rows.shape)
        if any(int(r.max()) >= p for r, p in zip(rows, self._layout.primes)):
            raise ValueError("a residue is not below its prime")
        self.rows[:] = rows


def warm_up() -> None:
    """Mask, add and open a vector of one value under a throw-away key."""
    values = LatticeParams("lattice", 3, 1, degree=2048, values=1)
    key, total = Key.draw(2048, SystemRng()), Total(values.layout)
    secret = key.peek()
    parts = residues(values.layout, mask(values, bytes(32), key, np.zeros(1, dtype=np.int64), SystemRng()))
    if canonical(values.layout, parts):
        total.add(parts)
    open_sum(values, bytes(32), total, secret, 1)


@lru_cache(maxsize=16)
def _garner(primes: tuple[int, ...]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    inverses = np.zeros((len(primes), len(primes)), dtype=np.uint64)
    for i, p in enumerate(primes):
        for j in range(i):
            inverses[i, j] = pow(primes[j], -1, p)
    return np.array(primes, dtype=np.uint64), inverses


def open_sum(params: LatticeParams, context: bytes, total: Total, secret: Secret, survivors: int) -> Codes:
    """The signed sum of the survivors' codes, shape (size,), from the sum of their keys.

    Aborts with BAD_SHARE where a coefficient's error exceeds 9 sigma sqrt(survivors), or a digit what the
    survivors can have sent: a wrong key sum leaves uniform residues, which pass with 2^-40 at most.
    """
    layout, digits = params.layout, params.digits
    phase = np.empty_like(total.rows)
    for row, p in enumerate(layout.primes):
        x = public(context, layout.degree, layout.groups, row, p)
        ring.multiply(x, ring.secret_factors(layout.degree, p, secret), layout.degree, p)
        phase[row] = x[: layout.count]
        kernels.subtract_from(phase[row], total.rows[row], layout.error % p, p)
    found = np.empty((layout.values, layout.count), dtype=np.int64)
    primes, inverses = _garner(layout.primes)
    worst, highest, left = kernels.split(
        found, phase, primes, inverses, layout.step, layout.error, digits.radix
    )
    flat = found.reshape(-1)
    if (
        left
        or worst > CHECK * SIGMA * survivors**0.5
        or highest > survivors * (digits.base - 1)
        or flat[digits.total :].any()
    ):
        raise Aborted(AbortCode.BAD_SHARE, "the key sum does not open the sum: some shares were wrong")
    return from_digits(params, flat[: digits.total], survivors)
