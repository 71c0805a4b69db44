"""Mask generation and addition against the machine's own limit, in one run.

    python benchmarks/masks.py [--size 1000000] [--masks 32] [--repeats 7]

Limit: AES-128-CTR keystream of one long-lived stream into a reused buffer, and one addition of that buffer
to an accumulator of the same size, both resident in the cache: what the hardware allows this construction.
merveil: `add_masks` over a whole vector with that many keys, cipher set-up and chunking included. The two
alternate, and medians are compared; the target is 70 %.
"""

import argparse
import os
import statistics
import time

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES128
from cryptography.hazmat.primitives.ciphers.modes import CTR

from merveil.protocols.primitives.packing import pack, unpack
from merveil.protocols.primitives.prg import add_masks

_CHUNK = 1 << 18


def limit(total: int) -> float:
    """Bytes a second of keystream and addition without any of the protocol's work."""
    stream = Cipher(AES128(os.urandom(16)), CTR(bytes(16))).encryptor()
    zeros, buffer = bytes(_CHUNK), bytearray(_CHUNK + 16)
    words = np.frombuffer(buffer, dtype=np.uint32, count=_CHUNK // 4)
    accumulator = np.zeros(_CHUNK // 4, dtype=np.uint32)
    rounds = max(1, total // _CHUNK)
    begun = time.perf_counter()
    for _ in range(rounds):
        stream.update_into(zeros, buffer)
        np.add(accumulator, words, out=accumulator)
    return rounds * _CHUNK / (time.perf_counter() - begun)


def ours(size: int, masks: int) -> float:
    keys = [os.urandom(16) for _ in range(masks)]
    total = np.zeros(size, dtype=np.uint32)
    begun = time.perf_counter()
    add_masks(total, keys[: masks // 2], keys[masks // 2 :])
    return masks * size * 4 / (time.perf_counter() - begun)


def packing(size: int, bits: int = 23) -> tuple[float, float]:
    """Million values a second packed and unpacked."""
    values = np.random.default_rng(0).integers(0, 1 << bits, size, dtype=np.uint32)
    begun = time.perf_counter()
    data = pack(values, bits)
    middle = time.perf_counter()
    unpack(data, size, bits)
    return size / (middle - begun) / 1e6, size / (time.perf_counter() - middle) / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--masks", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    pairs = [(ours(args.size, args.masks), limit(args.masks * args.size * 4)) for _ in range(args.repeats)]
    ratios = sorted(a / b for a, b in pairs)
    speed, bound = (statistics.median(column) for column in zip(*pairs))
    packed, unpacked = packing(args.size)
    print(
        f"limit {bound / 1e9:.2f} GB/s, merveil {speed / 1e9:.2f} GB/s over {args.masks} masks of {args.size}"
    )
    print(f"share of the limit: median {statistics.median(ratios):.1%}, {ratios[0]:.1%} to {ratios[-1]:.1%}")
    print(f"packing at 23 bits: {packed:.0f} million values/s, unpacking {unpacked:.0f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
