"""Known answers for the exact parts, as SHA-256 of wire forms; smudging is made of floats and has none."""

import hashlib

import numpy as np

from merveil.protocols.ckks import encoding, encryption
from merveil.protocols.ckks.params import CkksParams
from merveil.protocols.ckks.ring import Residues
from merveil.protocols.ckks.sampling import expand
from merveil.protocols.ckks.wire import encode_polynomials
from merveil.protocols.rng import SeededRng


def digest(x: Residues) -> str:
    return hashlib.sha256(encode_polynomials(x)).hexdigest()


def test_known_answers() -> None:
    common = expand(bytes(range(32)))
    assert common[0, :, 0].tolist() == [3328379268, 45857792047, 5314164345]
    assert digest(common) == "fb5240f129a96df9ac337c9a3f3774e55befef375a37d133f190efc659de8e46"
    rng = SeededRng(7)
    secret, public = encryption.key_pair(common, rng)
    assert secret[0, :8].tolist() == [1, 0, 0, 1, -1, -1, 0, 0]
    assert digest(public) == "db4b2ffb9e200ff14388cdbbb0e3610455a7e37ab3120e4371e121c705d05d03"
    shares = encryption.deal(secret, [1, 3], 3, rng)
    assert digest(shares[1]) == "a6e2fc4085c1985d83fef8c839f31cd54440249f70d79483851ffba60bbd8b52"
    assert digest(shares[3]) == "8895df66c6a232d3da8b38ad63a2755f978314aee731f974cdfba32ee039752c"
    params = CkksParams("ckks", 5, 40, threshold=4, corrupt=1)
    assert params.layout.delta == 209720
    limbs = encoding.to_limbs(params, np.arange(-20, 20, dtype=np.int64) * 1000)
    c0, c1 = encryption.encrypt(public, common, params, limbs, rng)
    assert digest(c0) == "b65ffddd9e2beb8b6c1eff0940193c50f9183ce3093542de141d2857f8e4ca62"
    assert digest(c1) == "79336f50ef296877500157427c564ab139b58970ec44fc5fc9fb89d5d74c018e"
