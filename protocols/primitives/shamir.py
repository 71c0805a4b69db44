"""Shamir sharing (1979) of 32-byte seeds over the prime field of p = 2^256 + 297.

Every 32-byte string is a field element, a share has 33 bytes, and any t - 1 shares are uniform whatever the
secret. Points are small integers, so Horner's rule runs on plain integers and reduces rarely; both secrets of
a dealer are evaluated in one pass. Lagrange coefficients are computed once per set of points.
"""

from collections.abc import Sequence
from functools import lru_cache

PRIME = 2**256 + 297
SHARE = 33
SECRET = 32
_COEFFICIENT = 48  # bytes drawn a coefficient: the bias of reducing 384 bits is below 2^-127
_RUN = 64  # Horner steps between reductions


def coefficients_size(threshold: int) -> int:
    """Random bytes that one sharing consumes."""
    return _COEFFICIENT * (threshold - 1)


def _polynomial(secret: bytes, threshold: int, randomness: bytes) -> list[int]:
    draws = (randomness[i : i + _COEFFICIENT] for i in range(0, len(randomness), _COEFFICIENT))
    return [int.from_bytes(secret, "big"), *(int.from_bytes(d, "big") % PRIME for d in draws)][:threshold]


def split_pair(
    first: bytes, second: bytes, threshold: int, points: Sequence[int], randomness: bytes
) -> list[tuple[bytes, bytes]]:
    """Shares of two 32-byte secrets at each point, threshold t: any t rebuild, t - 1 tell nothing.

    points: distinct, 1..65535. randomness: 2 * coefficients_size(threshold) secret bytes.
    """
    half = coefficients_size(threshold)
    if len(randomness) != 2 * half or len(first) != SECRET or len(second) != SECRET:
        raise ValueError("secrets of 32 bytes, and 96 random bytes for each of threshold - 1 coefficients")
    one = _polynomial(first, threshold, randomness[:half])
    two = _polynomial(second, threshold, randomness[half:])
    width = PRIME.bit_length() + _RUN * (max(points).bit_length() + 1)
    mask = (1 << width) - 1
    # both polynomials side by side in one integer; runs of coefficients, highest first
    packed = [a | b << width for a, b in zip(one, two)]
    runs = [packed[i : i + _RUN][::-1] for i in range(0, threshold, _RUN)][::-1]
    return [_evaluate(runs, x, width, mask) for x in points]


def _evaluate(runs: list[list[int]], x: int, width: int, mask: int) -> tuple[bytes, bytes]:
    left = right = 0
    power = pow(x, _RUN, PRIME)
    for run in runs:
        value = 0
        for coefficient in run:
            value = value * x + coefficient
        left = (left * power + (value & mask)) % PRIME
        right = (right * power + (value >> width)) % PRIME
    return left.to_bytes(SHARE, "big"), right.to_bytes(SHARE, "big")


@lru_cache(maxsize=4096)
def lagrange(points: tuple[int, ...]) -> tuple[int, ...]:
    """Coefficients l_i with secret = sum l_i * share_i mod p, for distinct points 1..65535."""
    product = 1
    for x in points:
        product = product * x % PRIME
    below = []
    for x in points:
        d = x
        for y in points:
            if y != x:
                d *= y - x
        below.append(d % PRIME)
    # one inversion for all (Montgomery's trick)
    prefix = [1]
    for d in below:
        prefix.append(prefix[-1] * d % PRIME)
    inverse = pow(prefix[-1], -1, PRIME)
    out = [0] * len(points)
    for i in range(len(points) - 1, -1, -1):
        out[i] = product * prefix[i] % PRIME * inverse % PRIME
        inverse = inverse * below[i] % PRIME
    return tuple(out)


def recover(points: tuple[int, ...], shares: Sequence[bytes]) -> bytes | None:
    """The secret from exactly threshold shares, or None where they give no 32-byte value.

    A wrong share gives a wrong secret: the caller checks the result against the dealer's commitment.
    """
    total = sum(c * int.from_bytes(s, "big") for c, s in zip(lagrange(points), shares, strict=True)) % PRIME
    return total.to_bytes(SECRET, "big") if total < 1 << 256 else None


def is_share(data: bytes) -> bool:
    """Whether 33 bytes are the canonical form of a field element."""
    return len(data) == SHARE and int.from_bytes(data, "big") < PRIME
