"""TenSEAL as the oracle: it opens what is encrypted here, in both encodings, and the reverse."""

from typing import Any

import numpy as np
import pytest

from merveil.protocols.ckks import encoding, ring, seal, slots
from merveil.protocols.ckks.constants import BITS, DATA, DEGREE, PRIMES
from merveil.protocols.ckks.params import CkksParams

sealapi = pytest.importorskip("tenseal.sealapi", reason="needs the ckks extra")

SLOTS = CkksParams("ckks", 4, 4000, threshold=3, corrupt=1, slots=1)
COEFFICIENTS = CkksParams("ckks", 4, 4000, threshold=3, corrupt=1)


def seal_context() -> Any:
    settings = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS)
    settings.set_poly_modulus_degree(DEGREE)
    settings.set_coeff_modulus(sealapi.CoeffModulus.Create(DEGREE, list(BITS)))
    return sealapi.SEALContext(settings, True, sealapi.SEC_LEVEL_TYPE.TC128)


def test_the_primes_are_those_that_seal_chooses() -> None:
    assert tuple(m.value() for m in sealapi.CoeffModulus.Create(DEGREE, list(BITS))) == PRIMES


def test_slots_are_encoded_as_seal_does() -> None:
    encoder, plain = sealapi.CKKSEncoder(seal_context()), sealapi.Plaintext()
    values = np.random.default_rng(1).integers(-3000, 3001, DEGREE // 2)
    scale = 2**40
    encoder.encode(list(values.astype(float)), float(scale), plain)
    theirs = np.array([plain.data(i) for i in range(DATA * DEGREE)], dtype=np.int64).reshape(1, DATA, DEGREE)
    whole, shift = slots.to_polynomial(values[None], 3000, scale)
    assert shift == 0
    gap = ring.inverse((theirs - ring.forward(ring.residues(whole, DATA))) % np.array(PRIMES[:DATA])[:, None])
    centred = np.minimum(gap, np.array(PRIMES[:DATA])[:, None] - gap)
    assert centred.max() <= 1, "the same polynomial up to rounding"
    assert np.abs(encoding.to_values(whole.astype(float))[0] / scale - values).max() < 1e-8


def test_tenseal_opens_the_joint_sum_without_a_key(keys: Any) -> None:
    """c0 plus the answers, with c1 = 0, decodes in any context: TenSEAL as evaluator of the result."""
    k = keys(SLOTS)
    codes = [k.codes(i) for i in range(3)]
    sums = [ring.add(a, b) for a, b in zip(k.encrypt(codes[0]), k.encrypt(codes[1]))]
    sums = [ring.add(a, b) for a, b in zip(sums, k.encrypt(codes[2]))]
    opened = k.open(sums[0], sums[1], (1, 2, 4))
    limbs, quiet = encoding.read(SLOTS, opened)
    assert quiet and np.array_equal(encoding.from_limbs(SLOTS, limbs), np.sum(codes, axis=0))
    ts = seal.tenseal()
    holder = ts.context(ts.SCHEME_TYPE.CKKS, DEGREE, coeff_mod_bit_sizes=list(BITS))
    scale = SLOTS.layout.scale
    decoded = seal.vector(holder, opened[0], np.zeros_like(opened[0]), DEGREE // 2, scale).decrypt()
    assert np.abs(np.array(decoded) - limbs[0]).max() < SLOTS.layout.noise_bound / scale


def test_tenseal_encrypts_under_the_joint_key_and_we_open_it(keys: Any) -> None:
    k = keys(SLOTS)
    ts = seal.tenseal()
    holder = seal.context(k.joint, k.common, SLOTS.layout.scale)
    assert holder.is_public() and not holder.has_secret_key()
    values = np.rint(np.random.default_rng(2).uniform(-1000, 1000, DEGREE // 2))
    sent = ts.ckks_vector(holder, list(values))
    c0, c1 = seal.residues(sent)
    opened = k.open(c0[None], c1[None], (2, 3, 4))
    limbs, quiet = encoding.read(SLOTS, opened)
    assert quiet and np.array_equal(limbs[0], values)


def test_tenseal_adds_what_is_encrypted_here(keys: Any) -> None:
    k = keys(SLOTS)
    holder = seal.context(k.joint, k.common, SLOTS.layout.scale)
    one, two = k.codes(5), k.codes(6)
    a, b = k.encrypt(one), k.encrypt(two)
    total = seal.vector(holder, a[0][0], a[1][0], DEGREE // 2, SLOTS.layout.scale)
    total += seal.vector(holder, b[0][0], b[1][0], DEGREE // 2, SLOTS.layout.scale)
    c0, c1 = seal.residues(total)
    assert np.array_equal(c0, ring.add(a[0].copy(), b[0])[0]) and np.array_equal(
        c1, ring.add(a[1].copy(), b[1])[0]
    )


def test_seal_decrypts_a_coefficient_encryption(keys: Any) -> None:
    """Under one secret: SEAL's own decryptor gives the plaintext polynomial, scale times the limbs."""
    k = keys(COEFFICIENTS)
    codes = k.codes(9)
    c0, c1 = k.encrypt(codes)
    secret = ring.forward(ring.residues(k.secret, DATA))
    plain = ring.multiply_add(c0.copy(), c1, secret)
    limbs, quiet = encoding.read(COEFFICIENTS, plain)
    assert quiet and np.array_equal(encoding.from_limbs(COEFFICIENTS, limbs), codes)
