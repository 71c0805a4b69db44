"""Parameters of `lattice` and the proof that a sum fits: digits, modulus, committee.

A code is one digit, or several where it is long; v digits of radix R and the error share one coefficient
modulo q: x = e + E + W(d_1 + R(d_2 + ...)), a mixed radix over the whole of q. R exceeds the largest sum of a
digit, W twice the largest summed error that passes the check, and W R^v <= q, so a full cohort never wraps.
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

from merveil.protocols.errors import AbortCode, LocalError
from merveil.protocols.lattice.constants import (
    CAPS,
    CHECK,
    FOUND,
    LANES,
    MAX_MEMBERS,
    MAX_PRIME_BITS,
    MAX_RADIX,
    ROOM,
    SIGMA,
)
from merveil.protocols.params import Params
from merveil.protocols.primitives.packing import packed_size


@dataclass(frozen=True)
class Digits:
    """How codes become digits in [0, base): `limbs` a code, `weight` for the weight; `total` in all.

    radix: above the largest sum of one digit over a full cohort.
    """

    base: int
    limbs: int
    weight: int
    total: int
    radix: int


@dataclass(frozen=True)
class Layout:
    """How digits become coefficients.

    values: digits a coefficient, v. count: coefficients sent, a multiple of 16. groups: of 16 polynomials.
    error: E. step: W. primes, bits: of the residues. size: bytes of a ciphertext.
    """

    degree: int
    values: int
    count: int
    groups: int
    error: int
    step: int
    primes: tuple[int, ...]
    bits: tuple[int, ...]
    size: int

    @property
    def modulus_bits(self) -> int:
        return sum(self.bits)


@dataclass(frozen=True)
class LatticeParams(Params):
    """Params with six more fields, which enter the encoding as all do.

    threshold and corrupt are over the cohort: fewest survivors of a sum, and colluding clients. degree: N.
    values: v. members: committee size k; 0 where `secagg+` sums the keys, whose threshold, corrupt and
    neighbours the common fields then are. quorum: answers that open a sum, t. corrupt_members: c of the
    committee. pack: secrets a polynomial, l; privacy holds against quorum - pack members.
    """

    degree: int = 8192
    values: int = 1
    members: int = 1
    quorum: int = 1
    corrupt_members: int = 0
    pack: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.degree not in CAPS:
            raise LocalError(f"degree is one of {sorted(CAPS)}, not {self.degree}", AbortCode.INPUT_RANGE)
        if not 1 <= self.values <= 64:
            raise LocalError(f"values lies in 1..64, not {self.values}", AbortCode.INPUT_RANGE)
        if not 0 <= self.members <= min(self.cohort, MAX_MEMBERS):
            raise LocalError(
                f"{self.members} members of a committee among {self.cohort} clients",
                AbortCode.PARAMS_BELOW_FLOOR,
            )
        if not 1 <= self.pack <= self.quorum <= max(1, self.members) or self.corrupt_members < 0:
            raise LocalError(
                f"{self.pack} secrets a polynomial, a quorum of {self.quorum} and {self.members} members do "
                "not go together",
                AbortCode.PARAMS_BELOW_FLOOR,
            )
        self.layout  # noqa: B018  refuses what does not fit

    @cached_property
    def digits(self) -> Digits:
        return make_digits(self.cohort, self.levels, self.dim, self.max_weight if self.weighted else 0)

    @cached_property
    def layout(self) -> Layout:
        """LocalError MODULUS_TOO_SMALL where `values` digits and the error do not fit the degree's q."""
        found = make_layout(self.digits, self.cohort, self.degree, self.values)
        if found is None:
            raise LocalError(
                f"{self.values} values a coefficient of {self.cohort} clients do not fit the "
                f"{CAPS[self.degree]} bits that degree {self.degree} carries: use fewer, or a larger degree",
                AbortCode.MODULUS_TOO_SMALL,
            )
        return found

    @property
    def privacy(self) -> int:
        """T: members whose shares together tell nothing of a client's key."""
        return self.quorum - self.pack

    @cached_property
    def field(self) -> int:
        """The prime over which keys are shared: above twice ten deviations of a key sum, and all points."""
        return share_field(self.cohort, self.members + self.pack)

    @property
    def field_bits(self) -> int:
        return self.field.bit_length()

    @property
    def blocks(self) -> int:
        """Polynomials that share one key."""
        return -(-self.degree // self.pack)

    @property
    def share_size(self) -> int:
        """Bytes of one member's share of one key, unsealed."""
        return packed_size(self.blocks, self.field_bits)

    def describe(self) -> dict[str, float | int]:
        """The printed figures: ring, modulus, bytes, and what the hints leave."""
        found = self.layout
        return {
            "degree": self.degree,
            "log2_q": round(sum(math.log2(p) for p in found.primes), 2),
            "cap_bits": CAPS[self.degree],
            "values_per_coefficient": found.values,
            "coefficients": found.count,
            "error_room_deviations": round(found.error / (SIGMA * math.sqrt(self.cohort)), 2),
            "ciphertext_bytes": found.size,
            "members": self.members,
            "quorum": self.quorum,
            "pack": self.pack,
            "privacy": self.privacy,
            "share_field": self.field,
            "share_bytes": self.members * self.share_size,
            "hint_sigma": round(hint_sigma(self.honest), 3),
            "log2_hint_epsilon": round(
                hint_epsilon(self.honest, self.degree * (1 + found.groups * LANES)), 1
            ),
        }


def make_digits(cohort: int, levels: int, dim: int, max_weight: int) -> Digits:
    """One digit a code where its sum stays below 2^30, else the fewest digits of equal length."""
    limbs, base = 1, 2 * levels + 1
    while cohort * (base - 1) + 1 > MAX_RADIX:
        limbs += 1
        base = 1 << -(-(2 * levels).bit_length() // limbs)
    weight = 0
    while base**weight <= max_weight:
        weight += 1
    return Digits(base, limbs, weight, limbs * dim + weight, cohort * (base - 1) + 1)


def _is_prime(n: int) -> bool:
    """Miller-Rabin with bases that decide every n below 3.4e14."""
    if n < 2 or any(n % p == 0 and n != p for p in (2, 3, 5, 7, 11, 13, 17)):
        return n in (2, 3, 5, 7, 11, 13, 17)
    d, s = n - 1, 0
    while d % 2 == 0:
        d, s = d // 2, s + 1
    for a in (2, 3, 5, 7, 11, 13, 17):
        x = pow(a, d, n)
        if n == a or x in (1, n - 1):
            continue
        if not any((x := x * x % n) == n - 1 for _ in range(s - 1)):
            return False
    return True


@lru_cache(maxsize=512)
def _primes(degree: int, bits: int, count: int) -> tuple[int, ...]:
    """The `count` largest primes between 2^(bits-1) and 2^bits that are 1 modulo 2N, or all."""
    found: list[int] = []
    p = (1 << bits) - 2 * degree + 1
    while len(found) < count and p > 1 << (bits - 1):
        if _is_prime(p):
            found.append(p)
        p -= 2 * degree
    return tuple(found)


@lru_cache(maxsize=512)
def choose_primes(degree: int, need: int) -> tuple[int, ...]:
    """Primes with product >= need, of fewest bits in all, lengths equal up to one; () above the cap."""
    for total in range(need.bit_length() - 1, CAPS[degree] + 1):
        rows = -(-total // MAX_PRIME_BITS)
        short, longer = divmod(total, rows)
        primes = _primes(degree, short + 1, longer) + _primes(degree, short, rows - longer)
        if len(primes) == rows and math.prod(primes) >= need:
            return primes
    return ()


def lane_words(positions: int, bits: int) -> int:
    """32-bit words of one lane that holds `positions` residues."""
    return -(-positions * bits // 32)


def make_layout(digits: Digits, cohort: int, degree: int, values: int) -> Layout | None:
    """The layout of `values` digits a coefficient, or None where q would exceed the degree's cap."""
    positions = -(-digits.total // (values * LANES))
    count = positions * LANES
    # the share of W in which a residual passes, to the power of the coefficients: 2^-40 at most
    spread = max(ROOM / CHECK, 2.0 ** (FOUND / count))
    error = math.ceil(CHECK * SIGMA * math.sqrt(cohort) * spread)
    step = 2 * error + 1
    primes = choose_primes(degree, step * digits.radix**values)
    if not primes:
        return None
    bits = tuple(p.bit_length() for p in primes)
    size = sum(4 * LANES * lane_words(positions, b) for b in bits)
    return Layout(degree, values, count, -(-positions // degree), error, step, primes, bits, size)


@lru_cache(maxsize=256)
def best_layout(digits: Digits, cohort: int, degree: int) -> Layout | None:
    """The layout of fewest bytes at a degree."""
    best, values = None, 1
    while values <= 64 and (found := make_layout(digits, cohort, degree, values)) is not None:
        if best is None or found.size < best.size:
            best = found
        values += 1
    return best


@lru_cache(maxsize=256)
def share_field(cohort: int, points: int) -> int:
    """The largest prime of the fewest bits above 20 sigma sqrt(n) + 1 and above all points."""
    least = max(2 * math.ceil(ROOM * SIGMA * math.sqrt(cohort)) + 2, points + 2)
    bits = least.bit_length()
    while True:
        for p in range((1 << bits) - 1, least, -2):
            if _is_prime(p):
                return p
        bits += 1


def hint_sigma(honest: int) -> float:
    """Deviation that is left of a secret when the sum over `honest` honest clients is known (Hint-RLWE).

    1/s'^2 = 2 (1/s1^2 + 1/s2^2) with s1 = 6.4 and s2 = 6.4 sqrt(h - 1) (Kim, Lee, Seo, Song, CRYPTO 2023).
    """
    return SIGMA * math.sqrt((honest - 1) / (2 * honest)) if honest > 1 else 0.0


def hint_epsilon(honest: int, dimension: int) -> float:
    """log2 of the smoothing loss: the largest epsilon with s' >= sqrt(ln(2m(1 + 1/epsilon)))/pi.

    dimension: m. The strict form; published scripts divide by sqrt(2) more (docs/lattice.md).
    """
    exponent = (math.pi * hint_sigma(honest)) ** 2 - math.log(2 * dimension)
    return -math.inf if exponent > 700 else -math.log2(max(math.expm1(exponent), 2.0**-1000))
