"""Parameters: headroom at the exact edge, one encoding for equal values, and every field checked."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from merveil.protocols.errors import AbortCode, LocalError
from merveil.protocols.params import Params

GOOD = Params("plain", 10, 100, bits=16, clip=0.5, max_weight=4, threshold=6, corrupt=2, neighbours=8)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"cohort": 0}, AbortCode.SHAPE_MISMATCH),
        ({"cohort": 65_536}, AbortCode.SHAPE_MISMATCH),
        ({"dim": 0}, AbortCode.SHAPE_MISMATCH),
        ({"dim": 2**31}, AbortCode.SHAPE_MISMATCH),
        ({"bits": 3}, AbortCode.INPUT_RANGE),
        ({"bits": 41}, AbortCode.INPUT_RANGE),
        ({"clip": 0.0}, AbortCode.INPUT_RANGE),
        ({"clip": -1.0}, AbortCode.INPUT_RANGE),
        ({"clip": float("nan")}, AbortCode.INPUT_RANGE),
        ({"clip": float("inf")}, AbortCode.INPUT_RANGE),
        ({"clip": 5e-324}, AbortCode.INPUT_RANGE),
        ({"clip": 1e300}, AbortCode.INPUT_RANGE),
        ({"clip": "1"}, AbortCode.INPUT_RANGE),
        ({"clip": True}, AbortCode.INPUT_RANGE),
        ({"max_weight": 0}, AbortCode.INPUT_RANGE),
        ({"max_weight": -1}, AbortCode.INPUT_RANGE),
        ({"threshold": 0}, AbortCode.PARAMS_BELOW_FLOOR),
        ({"threshold": 11}, AbortCode.PARAMS_BELOW_FLOOR),
        ({"corrupt": -1}, AbortCode.PARAMS_BELOW_FLOOR),
        ({"corrupt": 10}, AbortCode.PARAMS_BELOW_FLOOR),
        ({"neighbours": -1}, AbortCode.PARAMS_BELOW_FLOOR),
        ({"neighbours": 10}, AbortCode.PARAMS_BELOW_FLOOR),
        ({"scheme": ""}, AbortCode.INPUT_RANGE),
        ({"scheme": "plain\ncohort=1"}, AbortCode.INPUT_RANGE),
        ({"scheme": b"plain"}, AbortCode.INPUT_RANGE),
        *(({name: 3.0}, AbortCode.INPUT_RANGE) for name in ("cohort", "dim", "bits", "max_weight")),
        *(({name: True}, AbortCode.INPUT_RANGE) for name in ("threshold", "corrupt", "neighbours")),
    ],
)
def test_each_field_is_checked(change: dict[str, Any], code: AbortCode) -> None:
    with pytest.raises(LocalError) as caught:
        replace(GOOD, **change)
    assert caught.value.code is code


@pytest.mark.parametrize("cohort", [1, 2, 3, 4, 5, 8, 9, 100, 1000, 65_535])
@pytest.mark.parametrize("bits", [4, 5, 16, 32, 40])
def test_the_sum_of_a_full_cohort_fits_and_not_much_more_would(cohort: int, bits: int) -> None:
    p = Params("plain", cohort, 1, bits=bits)
    most = cohort * (2 ** (bits - 1) - 1)
    half = p.modulus // 2
    assert -half <= -most and most < half, "signed sums are unambiguous"
    if cohort > 1:
        assert 2 * cohort * 2 ** (bits - 1) > p.modulus // 2, "no bit is wasted"
    assert p.modulus == 2**p.modulus_bits and p.modulus_bits <= 62


def test_the_sum_of_weights_fits_to_the_exact_edge() -> None:
    edge = Params("plain", 10, 5, bits=4, max_weight=25)  # modulus 2^8: 10 * 25 < 256
    assert edge.modulus == 256
    with pytest.raises(LocalError) as caught:
        replace(edge, max_weight=26)
    assert caught.value.code is AbortCode.MODULUS_TOO_SMALL
    tight = Params("plain", 8, 5, bits=4, max_weight=15)  # 8 * 16 = 2^7, the modulus itself
    with pytest.raises(LocalError):
        replace(tight, max_weight=16)


def test_a_headroom_that_a_wrong_levels_formula_would_break_is_refused() -> None:
    """The check is made on the values, not trusted to their derivation."""

    class Wide(Params):
        @property
        def levels(self) -> int:
            return 1 << (self.bits - 1)

    with pytest.raises(LocalError) as caught:
        Wide("plain", 4, 1)
    assert caught.value.code is AbortCode.MODULUS_TOO_SMALL


def test_equal_parameters_encode_alike_whatever_numbers_made_them() -> None:
    a = Params("plain", 4, 9, bits=8, clip=1.0)
    for clip in (1, np.float32(1), np.float64(1), np.int64(1)):
        b = Params("plain", np.int32(4), np.int64(9), bits=np.uint8(8), clip=clip)  # type: ignore[arg-type]
        assert a == b and a.encoded == b.encoded and a.modulus == b.modulus


def test_the_encoding_is_the_documented_one() -> None:
    assert GOOD.encoded.decode().split("\n") == [
        "scheme=plain", "cohort=10", "dim=100", "bits=16", "clip=0x1.0000000000000p-1", "max_weight=4",
        "threshold=6", "corrupt=2", "neighbours=8",
    ]  # fmt: skip


def test_every_field_enters_the_encoding() -> None:
    changes = {"scheme": "secagg", "cohort": 9, "dim": 99, "bits": 15, "clip": 0.25, "max_weight": 3,
               "threshold": 5, "corrupt": 1, "neighbours": 6}  # fmt: skip
    assert set(changes) == {f.name for f in fields(Params)}
    seen = {replace(GOOD, **{name: value}).encoded for name, value in changes.items()}
    assert len(seen) == len(changes) and GOOD.encoded not in seen


def test_derived_sizes() -> None:
    assert GOOD.size == 101 and GOOD.weighted and GOOD.honest == 5
    assert replace(GOOD, max_weight=1).size == 100
    assert replace(GOOD, neighbours=0).honest == 4
