"""The context: every field counts, and a mismatch has a name."""

import hashlib
from dataclasses import fields, replace

import pytest

from merveil.protocols.context import Context
from merveil.protocols.errors import AbortCode, LocalError

GOOD = Context("plain/1", b"f" * 32, 3, b"r" * 32, (1, 2, 5), 7, 2, b"scheme=plain", b"m" * 32, b"c" * 32)
# field -> another value, and the code a peer's fingerprint names it with
CHANGES = {
    "suite": ("plain/2", AbortCode.PARAMS_MISMATCH),
    "federation": (b"F" * 32, AbortCode.ROSTER_MISMATCH),
    "serial": (4, AbortCode.ROSTER_MISMATCH),
    "roster_hash": (b"R" * 32, AbortCode.ROSTER_MISMATCH),
    "cohort": ((1, 2, 6), AbortCode.ROSTER_MISMATCH),
    "round": (8, AbortCode.STALE_KEY),
    "attempt": (3, AbortCode.STALE_KEY),
    "params": (b"scheme=plain\ncohort=1", AbortCode.PARAMS_MISMATCH),
    "model_hash": (b"M" * 32, AbortCode.MODEL_MISMATCH),
    "config_hash": (b"C" * 32, AbortCode.MODEL_MISMATCH),
}


def test_the_table_names_every_field() -> None:
    assert set(CHANGES) == {f.name for f in fields(Context)}


@pytest.mark.parametrize("name", CHANGES)
def test_each_field_changes_the_digest_and_is_named(name: str) -> None:
    value, code = CHANGES[name]
    other = replace(GOOD, **{name: value})
    assert other.digest != GOOD.digest
    assert GOOD.difference(other.fingerprint) is code
    assert other.difference(GOOD.fingerprint) is code


def test_equal_contexts_agree() -> None:
    again = replace(GOOD)
    assert again.digest == GOOD.digest and GOOD.difference(again.fingerprint) is None
    assert len(GOOD.fingerprint) == 48 and len(GOOD.digest) == 32


def test_the_digest_is_the_documented_one() -> None:
    parts = (
        b"merveil/context/1", b"plain/1", b"f" * 32, b"\x00\x00\x00\x03", b"r" * 32,
        b"\x00\x01\x00\x02\x00\x05", b"\x00\x00\x00\x07", b"\x00\x02", b"scheme=plain", b"m" * 32, b"c" * 32,
    )  # fmt: skip
    encoded = b"".join(len(p).to_bytes(4, "big") + p for p in parts)
    assert GOOD.digest == hashlib.sha256(encoded).digest()


@pytest.mark.parametrize(
    "change",
    [{"round": 0}, {"round": 2**32}, {"attempt": 0}, {"attempt": 2**16}, {"model_hash": b""},
     {"model_hash": b"m" * 31}, {"config_hash": b"c" * 33}],
)  # fmt: skip
def test_values_that_do_not_encode_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(LocalError):
        replace(GOOD, **change)  # type: ignore[arg-type]
