"""The transform to slots, against exact sums of 160-bit cosines: its error bound, at the edges too."""

import hashlib
import math

import numpy as np
import pytest

from merveil.protocols.ckks import encoding, slots
from merveil.protocols.ckks.constants import DEGREE
from merveil.protocols.ckks.params import SLOT_ERROR, CkksParams

WHICH = (0, 1, 2, 77, 1023, 1024, 2047, 2048, 2049, 3000, 3071, 4094, 4095, *range(100, 2000, 100))
EXPONENTS = [pow(3, i, 2 * DEGREE) for i in range(slots.POINTS)]
ONE = 1 << 160
SCALE = 18_000 * 68719230977

KNOWN = (
    [-2396583180322875, -26635253906502467, 15184879612142224],
    "0438752ceb066ccbe3c5155823c61708b19c7c53be96cc86c61d20998cdd7233",
)


def cosine(k: int) -> int:
    """cos(pi k / 4096), 160 bits."""
    k %= 2 * DEGREE
    return slots._circle()[k][0] if k < DEGREE else -slots._circle()[k - DEGREE][0]


def exact(values: np.ndarray, scale: int) -> list[float | int]:
    """Some coefficients of the polynomial, each a sum over all slots: in units of 2^-64."""
    found = []
    for k in WHICH:
        total = sum(int(v) * cosine(e * k) for v, e in zip(values, EXPONENTS))
        found.append(total * scale // (slots.POINTS * ONE >> 64))
    return found


def error(values: np.ndarray, largest: int, scale: int) -> np.ndarray:
    whole, shift = slots.to_polynomial(values[None], largest, scale)
    true = exact(values, scale)
    return np.array([((int(whole[0, k]) << (shift + 64)) - t) / 2.0**64 for k, t in zip(WHICH, true)])


def test_the_table_is_a_circle() -> None:
    table = slots._circle()
    assert len(table) == DEGREE and table[DEGREE // 2][0] in range(-(1 << 20), 1 << 20)
    for k in (0, 1, 5, 1000, 2048, 4095):
        c, s = table[k]
        assert abs(c * c + s * s - ONE * ONE) < ONE << 30, "130 bits of 160"
        assert math.isclose(c / ONE, math.cos(math.pi * k / DEGREE), abs_tol=1e-15)
        assert math.isclose(s / ONE, math.sin(math.pi * k / DEGREE), abs_tol=1e-15)


def inputs(largest: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    wave = np.array([cosine(e * 1234) for e in EXPONENTS], dtype=float)
    return {
        "random": rng.integers(-largest, largest + 1, slots.POINTS),
        "signs": largest * rng.choice([-1, 1], slots.POINTS),
        "constant": np.full(slots.POINTS, -largest),
        "square wave": np.where(wave > 0, largest, -largest),
        "one": np.where(np.arange(slots.POINTS) == 9, largest, 0),
    }


@pytest.mark.parametrize("largest", [1, 7, 32767, 2**23 - 1])
@pytest.mark.parametrize("name", ["random", "signs", "constant", "square wave", "one"])
def test_the_error_is_below_its_bound(largest: int, name: str) -> None:
    """The bound is on the root mean square; 32 coefficients of it are looked at."""
    values = inputs(largest)[name].astype(np.int64)
    found = error(values, largest, SCALE)
    assert np.sqrt(np.mean(found**2)) <= SLOT_ERROR * largest * SCALE + 0.5
    assert np.abs(found).max() <= 12 * SLOT_ERROR * largest * SCALE + 1


def test_the_bound_is_not_idle() -> None:
    """A tenth of it would not do: what is counted as noise is what is there."""
    found = error(inputs(32767)["random"], 32767, SCALE)
    assert np.sqrt(np.mean(found**2)) > SLOT_ERROR * 32767 * SCALE / 10


def test_a_coarser_grid_takes_sums() -> None:
    p = CkksParams("ckks", 6, 2048, threshold=4, corrupt=1, slots=1)
    sums = np.full((1, 2048), 6 * p.layout.digit)
    whole, factors = encoding.coefficients(p, sums)
    assert int(whole[0, 0]) * factors[0] == pytest.approx(6 * p.layout.digit * p.layout.scale, rel=1e-15)
    assert np.abs(whole[0, 1:]).max() * float(factors[0]) < 2.0**-55 * p.layout.digit * p.layout.scale


def test_the_same_bits_on_every_machine() -> None:
    whole, shift = slots.to_polynomial(np.arange(-1024, 1024)[None] * 31, 32767, SCALE)
    assert shift == 3 and whole[0, :3].tolist() == KNOWN[0]
    assert hashlib.sha256(whole.astype("<i8").tobytes()).hexdigest() == KNOWN[1]
