"""To and from TenSEAL: here it is oracle, evaluator and peer of benchmarks, never a parser of foreign bytes.

Everything handed to TenSEAL is rebuilt from residues that `wire` has checked and from constants: levels,
scale and parameter ids come from here. A TenSEAL context and vector are protobuf messages around SEAL
objects; a SEAL object is a 16-byte header (compression 0 is accepted) and a fixed layout (SEAL 4.x,
`serialization.h`, `ciphertext.cpp`).
"""

import struct
import tempfile
from types import ModuleType
from typing import Any

import numpy as np

from merveil.protocols.ckks.constants import DATA, DEGREE, PRIMES
from merveil.protocols.ckks.ring import Residues
from merveil.protocols.errors import LocalError

# Hashes of the parameters with all three primes, and with the two data primes, as SEAL names a level.
_KEY_LEVEL = bytes.fromhex("c9cc27658699f69677051415228a77a2652813666861bde62136d6f83f7fbf4b")
_DATA_LEVEL = bytes.fromhex("477a464326c24f9e61231ea3326a08ae13cf30b5502f36f98395ce7c6168ef9c")
_HEAD = struct.Struct("<HBBBBHQ")  # magic, header size, version 4.3, compression, reserved, size
_CKKS = 2
_POLYNOMIALS = struct.Struct("<32sBQQQdQ")  # level, NTT form, polynomials, degree, primes, scale, correction


def tenseal() -> ModuleType:
    """The library; LocalError names the extra where it is missing."""
    try:
        import tenseal as found  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        raise LocalError("this needs TenSEAL: pip install 'merveil[ckks]'") from error
    module: ModuleType = found
    return module


def low_level() -> Any:
    """TenSEAL's bindings of SEAL itself; LocalError names the extra where they are missing."""
    tenseal()
    from tenseal import sealapi

    return sealapi


def context(joint: Residues, common: Residues, scale: float) -> Any:
    """A TenSEAL context that encrypts under a joint key and holds no secret one.

    joint, common: b and a in NTT form over three primes, shape (1, 3, 4096). scale: the vectors' scale.
    """
    key = _seal_polynomials(_KEY_LEVEL, np.concatenate((joint, common)), 1.0)
    public = _bytes(1, key) + _varint(2 << 3) + _varint(7) + _double(3, scale)
    return tenseal().context_from(_bytes(1, _seal_parameters()) + _bytes(2, public))


def vector(holder: Any, c0: Residues, c1: Residues, length: int, scale: float) -> Any:
    """A TenSEAL vector of one ciphertext, c0 and c1 of shape (2, 4096). holder: a context of these primes."""
    body = seal_ciphertext(c0, c1, scale)
    data = _bytes(1, _varint(length)) + _bytes(2, body) + _double(3, scale)
    return tenseal().ckks_vector_from(holder, data)


def seal_ciphertext(c0: Residues, c1: Residues, scale: float = 2.0**30) -> bytes:
    """SEAL's own serialised form of one ciphertext, c0 and c1 of shape (2, 4096)."""
    return _seal_polynomials(_DATA_LEVEL, np.stack((c0, c1)), scale)


def residues(own: Any) -> tuple[Residues, Residues]:
    """(c0, c1), each (2, 4096), of the first ciphertext of a TenSEAL vector that this process made itself."""
    sealapi = low_level()
    settings = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS)
    settings.set_poly_modulus_degree(DEGREE)
    settings.set_coeff_modulus([sealapi.Modulus(p) for p in PRIMES])
    found = sealapi.Ciphertext()
    with tempfile.TemporaryDirectory() as folder:  # TenSEAL hands out its polynomials through files only
        path = f"{folder}/ciphertext"
        own.ciphertext()[0].save(path)
        found.load(sealapi.SEALContext(settings, True, sealapi.SEC_LEVEL_TYPE.TC128), path)
    held = found.dyn_array()
    flat = np.array([held.at(i) for i in range(2 * DATA * DEGREE)], dtype=np.int64)
    parts = flat.reshape(2, DATA, DEGREE)
    return parts[0], parts[1]


def _seal(body: bytes) -> bytes:
    return _HEAD.pack(0xA15E, 16, 4, 3, 0, 0, _HEAD.size + len(body)) + body


def _seal_parameters() -> bytes:
    moduli = b"".join(_seal(struct.pack("<Q", p)) for p in (*PRIMES, 0))  # the last: no plain modulus
    return _seal(struct.pack("<BQQ", _CKKS, DEGREE, len(PRIMES)) + moduli)


def _seal_polynomials(level: bytes, x: Residues, scale: float) -> bytes:
    """x: shape (polynomials, primes, 4096)."""
    head = _POLYNOMIALS.pack(level, 1, x.shape[0], DEGREE, x.shape[1], scale, 1)
    return _seal(head + _seal(struct.pack("<Q", x.size) + x.astype("<u8").tobytes()))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))


def _bytes(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)
