"""Parameters of `ckks` and the proof that a sum fits: limbs, scale, noise.

A code is split into limbs, signed digits of a base 2^w; a limb is one coefficient. The scale is delta*p0, so
a message lives modulo the second prime only and is read off by integer division. The fewest limbs are taken
with which the noise of a full cohort stays below half a scale step by ten standard deviations: the decrypted
limbs are then exact, except with probability 2^-75 a coefficient (docs/ckks.md).
"""

import math
from dataclasses import dataclass, fields
from functools import cached_property

from merveil.protocols.ckks.constants import (
    CIPHERTEXT_BYTES,
    DATA,
    DEGREE,
    ERROR_VARIANCE,
    PRIMES,
    SPECIAL,
    TERNARY_VARIANCE,
)
from merveil.protocols.errors import AbortCode, LocalError
from merveil.protocols.params import Params

DEVIATIONS = 10.0
_MAX_LIMBS = 6
SLOT_ERROR = 2.95 * 2.0**-63  # root mean square over coefficients, relative to digit * scale: see `slots`
_MARGIN = 1.1  # on the two-norm of 4,096 coefficients, whose spread is about one per cent


@dataclass(frozen=True)
class Layout:
    """How codes become coefficients.

    limbs, width: digits a code, bits a digit. digit: the largest one that a client sends. ciphertexts: K.
    capacity: limbs in each. delta: the scale is delta*p0. ciphertext_noise, smudging: standard deviations of
    a coefficient, of the sum's own noise and of one answer. noise_bound: ten deviations of what a limb is
    read with. headroom: half a scale step over it.
    """

    limbs: int
    width: int
    digit: int
    ciphertexts: int
    capacity: int
    delta: int
    ciphertext_noise: float
    smudging: float
    noise_bound: float
    headroom: float

    @property
    def scale(self) -> float:
        return float(self.delta * PRIMES[0])


@dataclass(frozen=True)
class CkksParams(Params):
    """Params with three more fields, which enter the encoding as all do.

    smudging: s in bits. slots: 0 for coefficients, 1 for slots. authority: roster index of the one client
    that holds the key, 0 where nobody does and `threshold` clients open a sum together (ADR 0054).
    """

    smudging: int = 40
    slots: int = 0
    authority: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.smudging <= 60:
            raise LocalError(f"smudging from 1 to 60 bits, not {self.smudging}", AbortCode.INPUT_RANGE)
        if self.slots not in (0, 1):
            raise LocalError(f"slots is 0 or 1, not {self.slots}", AbortCode.INPUT_RANGE)
        if not 0 <= self.authority <= 65_535:
            raise LocalError(f"authority is a roster index or 0, not {self.authority}", AbortCode.INPUT_RANGE)
        if self.cohort < 2:
            raise LocalError("a joint key needs two clients", AbortCode.COHORT_TOO_SMALL)
        self.layout  # noqa: B018  refuses what does not fit

    @cached_property
    def layout(self) -> Layout:
        """The fewest limbs that fit; LocalError MODULUS_TOO_SMALL where none do."""
        for limbs in range(1, _MAX_LIMBS + 1):
            found = self._layout(limbs)
            if found is not None:
                return found
        raise LocalError(
            f"{self.cohort} clients with {self.smudging} bits of smudging do not fit the modulus: "
            "use a smaller cohort",
            AbortCode.MODULUS_TOO_SMALL,
        )

    def _layout(self, limbs: int) -> Layout | None:
        largest = max(self.levels, self.max_weight)
        width = -(-(largest.bit_length() + 1) // limbs)
        digit = largest if limbs == 1 else (1 << (width - 1)) + 1
        largest = PRIMES[1] // (2 * (self.cohort * digit + 1))
        capacity = DEGREE // 2 if self.slots else DEGREE
        count = -(-self.size * limbs // capacity)
        delta = 1 if self.slots else largest
        for _ in range(4 if self.slots else 1):
            own = self._own_noise(digit, delta)
            smudging = smudging_noise(own, count, self.smudging)
            # the transform to slots adds N/2 independent coefficients
            spread = math.sqrt(DEGREE / 2) if self.slots else 1.0
            bound = DEVIATIONS * spread * math.sqrt(self.answers * smudging**2 + own**2)
            if self.slots:  # no larger than needed: the error of the encoding grows with the scale
                delta = min(largest, math.ceil(2.1 * bound / PRIMES[0]) + 4)
        room = PRIMES[0] * (delta / 2 - 2)
        if room < bound or smudging > 2.0**58:
            return None
        return Layout(limbs, width, digit, count, capacity, delta, own, smudging, bound, room / bound)

    def _own_noise(self, digit: int, delta: int) -> float:
        """Of a full sum: fresh encryptions; in slots also the error of encoding, its proven bound."""
        encoding = SLOT_ERROR * digit * delta * PRIMES[0] + 0.5 if self.slots else 0.0
        secrets = 1 if self.authority else self.cohort
        return math.sqrt(self.cohort * (fresh_noise(secrets) ** 2 + encoding**2))

    @property
    def answers(self) -> int:
        """How many decrypt."""
        return 1 if self.authority else self.threshold

    @property
    def verify_bytes(self) -> int:
        """What a decryptor downloads to check the sum: the c1 part of every survivor."""
        return self.cohort * self.layout.ciphertexts * CIPHERTEXT_BYTES

    def describe(self) -> dict[str, float | int | str]:
        """The printed figures: s, tau, log2 Q and scale, noise, limbs, bytes a value, failure probability."""
        found = self.layout
        q = math.log2(PRIMES[0]) + math.log2(PRIMES[1])
        return {
            "keys": "authority" if self.authority else "threshold",
            "degree": DEGREE,
            "primes_bits": sum(p.bit_length() for p in PRIMES),
            "log2_q": round(q, 2),
            "log2_scale": round(math.log2(found.delta) + math.log2(PRIMES[0]), 2),
            "smudging_bits": self.smudging,
            "smudging_distance_log2": round(-(self.smudging / 2 + 2.8), 1),
            "tau": found.ciphertexts,
            "log2_smudging_noise": round(math.log2(found.smudging), 2),
            "log2_ciphertext_noise": round(math.log2(found.ciphertext_noise), 2),
            "headroom_bits": round(math.log2(found.headroom), 2),
            "limbs": found.limbs,
            "ciphertexts": found.ciphertexts,
            "bytes_per_value": round(2 * found.ciphertexts * CIPHERTEXT_BYTES / self.size, 2),
            "verify_bytes": self.verify_bytes,
        }


def fresh_noise(cohort: int) -> float:
    """Standard deviation of one fresh ciphertext's coefficient under the joint key of `cohort` secrets.

    Rounding by the special prime dominates: (1 + s)*U(-1/2, 1/2); what encryption itself adds is divided by
    that prime.
    """
    secret = cohort * TERNARY_VARIANCE * DEGREE
    rounding = (1 + secret) / 12
    masked = ERROR_VARIANCE * (1 + 2 * secret)
    return math.sqrt(rounding + masked / PRIMES[SPECIAL] ** 2)


def smudging_noise(own: float, answered: int, bits: int) -> float:
    """sqrt(12 tau) 2^(s/2) B2 (Li, Micciancio, Schultz, Sorrell, CRYPTO 2022), B2 over all coefficients.

    own: deviation of the sum's noise. answered: tau, ciphertexts opened under one key: those of one round.
    The total divergence is then KL = 2^-s / 24.
    """
    norm = math.sqrt(DEGREE) * own * _MARGIN
    return math.sqrt(12 * answered) * 2 ** (bits / 2) * norm


def from_fields(settings: dict[str, object]) -> CkksParams:
    """Parameters from a mapping of their fields; LocalError for an unknown one."""
    known = {f.name for f in fields(CkksParams)}
    if not set(settings) <= known:
        raise LocalError(f"unknown parameters {sorted(set(settings) - known)}", AbortCode.PARAMS_MISMATCH)
    return CkksParams(**settings)  # type: ignore[arg-type]


assert DATA == 2, "limbs are read off with two data primes"
