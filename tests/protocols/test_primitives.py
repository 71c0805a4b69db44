"""Primitives against a second implementation, RFC vectors, and inputs made to break them."""

import hashlib

import numpy as np
import pytest
from Crypto.Cipher import AES
from Crypto.Hash import SHA256, SHAKE256
from Crypto.Protocol.KDF import HKDF
from Crypto.PublicKey import ECC
from Crypto.Signature import eddsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from merveil.protocols.errors import AbortCode, Aborted
from merveil.protocols.primitives import aead, agreement, kdf, sign
from merveil.protocols.rng import SeededRng, SystemRng

P = 2**255 - 19


def fields(*parts: bytes) -> bytes:
    return b"".join(len(p).to_bytes(4, "big") + p for p in parts)


def test_hash_fields_is_sha256_of_length_prefixed_fields() -> None:
    expected = hashlib.sha256(fields(b"merveil/x/1/y", b"", b"ab", b"c")).digest()
    assert kdf.hash_fields("x/1/y", b"", b"ab", b"c") == expected


@pytest.mark.parametrize("size", [0, 1, 254, 255, 256, 257, 70_000])
def test_a_field_of_any_length_has_a_four_byte_prefix(size: int) -> None:
    assert kdf.encode_fields("x/1/y", bytes(size)) == fields(b"merveil/x/1/y", bytes(size))


def test_no_two_field_lists_encode_alike() -> None:
    lists = [("p", b"ab", b"c"), ("p", b"a", b"bc"), ("p", b"abc"), ("p", b"", b"abc"), ("p", b"abc", b""),
             ("p",), ("pa", b"bc"), ("p", b"abc", b"", b"")]  # fmt: skip
    assert len({kdf.encode_fields(*x) for x in lists}) == len(lists)


@pytest.mark.parametrize("length", [16, 32, 33, 64, 255])
def test_derive_key_is_hkdf_sha256(length: int) -> None:
    secret, salt = bytes(range(32)), bytes(range(100, 132))
    info = fields(b"merveil/a/1/b", b"field", b"")
    expected = HKDF(secret, length, salt, SHA256, context=info)
    assert kdf.derive_key(secret, salt, "a/1/b", b"field", b"", length=length) == expected


def test_derive_key_separates_everything() -> None:
    base = kdf.derive_key(b"s" * 32, b"t" * 32, "p", b"f")
    others = [
        kdf.derive_key(b"S" * 32, b"t" * 32, "p", b"f"),
        kdf.derive_key(b"s" * 32, b"T" * 32, "p", b"f"),
        kdf.derive_key(b"s" * 32, b"t" * 32, "q", b"f"),
        kdf.derive_key(b"s" * 32, b"t" * 32, "p", b"g"),
        kdf.derive_key(b"s" * 32, b"t" * 32, "p"),
    ]
    assert len({base, *others}) == 6


def test_equal_compares() -> None:
    assert kdf.equal(b"ab", b"ab") and not kdf.equal(b"ab", b"ac") and not kdf.equal(b"ab", b"abc")


def test_sealing_is_aes_256_gcm() -> None:
    key, aad, text = bytes(range(32)), b"bound", b"secret text"
    other = AES.new(key, AES.MODE_GCM, nonce=bytes(12))
    other.update(aad)
    body, tag = other.encrypt_and_digest(text)
    assert aead.seal_once(key, text, aad) == body + tag
    assert aead.open_once(key, body + tag, aad) == text
    nonce = bytes(range(12))
    other = AES.new(key, AES.MODE_GCM, nonce=nonce)
    other.update(aad)
    body, tag = other.encrypt_and_digest(text)
    assert aead.seal(key, nonce, text, aad) == nonce + body + tag
    assert aead.unseal(key, nonce + body + tag, aad) == text


def test_nothing_but_the_sealed_bytes_opens() -> None:
    key, aad = bytes(32), b"aad"
    for seal, unseal in ((aead.seal_once(key, b"text", aad), aead.open_once),
                         (aead.seal(key, bytes(12), b"text", aad), aead.unseal)):  # fmt: skip
        assert unseal(key, seal, aad) == b"text"
        assert unseal(bytes(31) + b"\x01", seal, aad) is None
        assert unseal(key, seal, b"aae") is None
        for at in range(len(seal)):
            spoilt = bytearray(seal)
            spoilt[at] ^= 1
            assert unseal(key, bytes(spoilt), aad) is None
            assert unseal(key, seal[:at], aad) is None
        assert unseal(key, seal + b"\x00", aad) is None


def test_agreement_is_x25519_of_rfc_7748() -> None:
    """Section 6.1 of the RFC: Bob's private key, Alice's public key, their secret."""
    own = agreement.private_key(
        bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    )
    peer = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    public = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    secret = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    assert agreement.public_bytes(own).hex() == public
    assert agreement.agree(own, peer, 3).hex() == secret


# Public keys under which every agreement is zero: points of order 1, 2, 4 and 8 (and their twins).
LOW = [
    (0).to_bytes(32, "little"),
    (1).to_bytes(32, "little"),
    (P - 1).to_bytes(32, "little"),
    P.to_bytes(32, "little"),
    (P + 1).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
]


@pytest.mark.parametrize("key", LOW, ids=lambda k: k.hex()[:8])
def test_points_of_low_order_are_refused(key: bytes) -> None:
    assert agreement.is_low_order(key)
    with pytest.raises(Aborted) as caught:
        agreement.agree(agreement.private_key(bytes(range(32))), key, 7)
    assert caught.value.code is AbortCode.BAD_KEY and caught.value.culprits == {7}


@pytest.mark.parametrize("key", [b"", bytes(31), b"\x09" + bytes(32)])
def test_keys_of_another_length_are_refused(key: bytes) -> None:
    assert agreement.is_low_order(key) and sign.is_low_order(key)
    with pytest.raises(Aborted):
        agreement.agree(agreement.private_key(bytes(range(32))), key, 7)


def test_a_second_encoding_of_a_key_is_refused() -> None:
    """RFC 7748 ignores the top bit, so a key with it set would be another member's key under a new name."""
    key = agreement.public_bytes(agreement.private_key(bytes(range(32))))
    assert not agreement.is_low_order(key)
    assert agreement.is_low_order(key[:31] + bytes((key[31] | 0x80,)))
    assert agreement.is_low_order((P + 9).to_bytes(32, "little"))


def test_signatures_are_ed25519_over_the_fields() -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    public = key.public_key().public_bytes_raw()
    signature = sign.sign(key, "a/1/b", b"x", b"yz")
    message = fields(b"merveil/a/1/b", b"x", b"yz")
    other = ECC.construct(curve="Ed25519", seed=bytes(range(32)))
    assert eddsa.new(other, "rfc8032").sign(message) == signature
    assert sign.verify(public, signature, "a/1/b", b"x", b"yz")
    assert not sign.verify(public, signature, "a/1/b", b"xy", b"z")
    assert not sign.verify(public, signature, "a/1/c", b"x", b"yz")
    assert not sign.verify(public, signature[:63], "a/1/b", b"x", b"yz")
    assert not sign.verify(public[:31], signature, "a/1/b", b"x", b"yz")
    assert not sign.verify(b"\xff" * 32, signature, "a/1/b", b"x", b"yz")


def test_a_key_under_which_anyone_can_sign_is_known_as_such() -> None:
    """Under the neutral point A = (0, 1) the pair (R, S) = (B, 1) verifies for every message."""
    base = bytes.fromhex("58" + "66" * 31)
    forged = base + (1).to_bytes(32, "little")
    for y in (1, P + 1):
        for top in (0, 1 << 255):
            key = (y | top).to_bytes(32, "little")
            assert sign.verify(key, forged, "any", b"message"), "the library accepts it, so we must not"
            assert sign.is_low_order(key)


def test_the_list_of_small_points_is_all_there_are() -> None:
    d = -121665 * pow(121666, -1, P) % P

    def add(one: tuple[int, int], two: tuple[int, int]) -> tuple[int, int]:
        (x1, y1), (x2, y2) = one, two
        k = d * x1 * x2 * y1 * y2
        x = (x1 * y2 + x2 * y1) * pow(1 + k, -1, P) % P
        return x, (y1 * y2 + x1 * x2) * pow(1 - k, -1, P) % P

    y = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
    square = (y * y - 1) * pow(d * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    x = x if (x * x - square) % P == 0 else x * pow(2, (P - 1) // 4, P) % P
    assert (x * x - square) % P == 0
    point, seen = (0, 1), set()
    for _ in range(8):
        point = add(point, (x, y))
        seen.add(point[1])
    assert point == (0, 1), "the generator has order 8"
    for y_ in seen:
        for top in (0, 1 << 255):
            assert sign.is_low_order((y_ | top).to_bytes(32, "little"))
    assert len(seen) == 5


def test_honest_keys_are_not_of_low_order() -> None:
    for i in range(50):
        key = Ed25519PrivateKey.from_private_bytes(SeededRng(i).draw(32, "k"))
        assert not sign.is_low_order(key.public_key().public_bytes_raw())
        other = agreement.private_key(SeededRng(i).draw(32, "k"))
        assert not agreement.is_low_order(agreement.public_bytes(other))


def test_seeded_bytes_are_shake_256_of_seed_count_and_label() -> None:
    rng = SeededRng(b"seed")
    for count in range(3):
        head = (4).to_bytes(4, "big") + b"seed" + count.to_bytes(8, "big")
        expected = SHAKE256.new(b"merveil/rng/1/seeded" + head + b"label").read(50)
        assert rng.draw(50, "label") == expected


def test_adding_a_draw_shifts_no_other() -> None:
    one, two = SeededRng(1), SeededRng(1)
    two.draw(8, "other")
    assert one.draw(32, "key") == two.draw(32, "key") != one.draw(32, "key")
    assert SeededRng(1).child("a").draw(8, "x") != SeededRng(1).child("b").draw(8, "x")
    assert SeededRng(1).draw(8, "x") != SeededRng(2).draw(8, "x")


def test_the_system_generator_does_not_repeat() -> None:
    assert SystemRng().draw(32, "x") != SystemRng().draw(32, "x")
    assert len(SystemRng().draw(5, "x")) == 5


def test_sharing_and_masking_refuse_what_they_cannot_do_right() -> None:
    from merveil.protocols.primitives.prg import add_masks
    from merveil.protocols.primitives.shamir import coefficients_size, split_pair

    good, coins = bytes(32), bytes(2 * coefficients_size(3))
    for first, second, randomness in (
        (good[1:], good, coins),
        (good, good[1:], coins),
        (good, good, coins[1:]),
    ):
        with pytest.raises(ValueError, match="secrets of 32 bytes"):
            split_pair(first, second, 3, (1, 2, 3), randomness)
    with pytest.raises(ValueError, match="starts at a block"):
        add_masks(np.zeros(4, dtype=np.uint32), [bytes(16)], [], start=3)


@pytest.mark.parametrize("threshold", [2, 4, 70])
def test_one_share_fewer_than_the_threshold_rebuilds_neither_secret(threshold: int) -> None:
    from merveil.protocols.primitives.shamir import coefficients_size, recover, split_pair

    first, second = bytes(range(32)), bytes(range(32, 64))
    points = tuple(range(1, threshold + 2))
    drawn = SeededRng(threshold).draw(2 * coefficients_size(threshold), "shares")
    shares = split_pair(first, second, threshold, points, drawn)
    for held, rebuilt in ((points[:threshold], True), (points[: threshold - 1], False)):
        for side, secret in enumerate((first, second)):
            found = recover(held, [pair[side] for pair in shares[: len(held)]])
            assert (found == secret) is rebuilt
