"""CKKS uploads beside TenSEAL as peers use it, in one run: time to encrypt, and bytes a value.

    python benchmarks/ckks.py [--size 1000000] [--repeats 5] [--clients 10]

merveil: encryption of 16-bit codes under the joint key, encoding and wire form included, for the coefficient
and the slot encoding, with s = 40 smudging in the budget. Peers: TenSEAL at N = 8192 with [60, 40, 60] and a
public key (0.80 s per 1M values on two Zen 4 cores), and [60, 40, 40], symmetric, NVFlare's example; both
with serialisation, scale 2^40, and one secret key that all clients share. They alternate, and medians are
compared. Then one whole round of n clients: bytes by phase and direction, what a decryptor downloads to check
the sum, and the worst error of the mean against the clear one.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from merveil.fl.aggregator import SecureAggregator
from merveil.protocols.ckks import Ckks, encoding, encryption, ring
from merveil.protocols.ckks.messages import Kind
from merveil.protocols.ckks.sampling import expand
from merveil.protocols.ckks.seal import tenseal
from merveil.protocols.ckks.wire import encode_polynomials
from merveil.protocols.frame import SERVER
from merveil.protocols.rng import SystemRng


def own(size: int, clients: int, slots: bool) -> Callable[[], int]:
    """A call that encrypts `size` codes and returns its bytes."""
    params = Ckks().params(clients, size, slots=slots)
    rng, common = SystemRng(), expand(bytes(32))
    joint = np.zeros_like(common)
    for _ in range(clients):
        ring.add(joint, encryption.key_pair(common, rng)[1])
    codes = np.random.default_rng(0).integers(-params.levels, params.levels + 1, params.size)

    def run() -> int:
        limbs = encoding.to_limbs(params, codes)
        pair = encryption.encrypt(joint, common, params, limbs, rng)
        return sum(len(encode_polynomials(x)) for x in pair)

    return run


def peer(size: int, bits: list[int], symmetric: bool) -> Callable[[], int]:
    """The same through TenSEAL as it is used by others: vectors of N/2 floats, serialised."""
    ts = tenseal()
    kind = ts.ENCRYPTION_TYPE.SYMMETRIC if symmetric else ts.ENCRYPTION_TYPE.ASYMMETRIC
    holder = ts.context(ts.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=bits, encryption_type=kind)
    holder.global_scale = 2.0**40
    values = np.random.default_rng(0).uniform(-1, 1, size)
    parts = [values[i : i + 4096].tolist() for i in range(0, size, 4096)]
    return lambda: sum(len(ts.ckks_vector(holder, part).serialize()) for part in parts)


def measure(calls: dict[str, Callable[[], int]], repeats: int, size: int) -> dict[str, dict[str, float]]:
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    sizes = {name: call() for name, call in calls.items()}  # the first one compiles
    for _ in range(repeats):
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - begun)
    return {
        name: {
            "seconds": round(statistics.median(t), 4),
            "fastest": round(min(t), 4),
            "slowest": round(max(t), 4),
            "bytes_per_value": round(sizes[name] / size, 2),
        }
        for name, t in seconds.items()
    }


def whole_round(clients: int, size: int) -> dict[str, Any]:
    """One mean through the sessions: error, and bytes a client by phase and direction."""
    rng = np.random.default_rng(1)
    updates = [rng.uniform(-1, 1, size) for _ in range(clients)]
    aggregator = SecureAggregator("ckks", record=True)
    begun = time.perf_counter()
    mean = aggregator.mean(updates)
    seconds = time.perf_counter() - begun
    assert mean.transcript is not None and aggregator.params is not None
    traffic: dict[str, int] = {}
    for f in mean.transcript.frames:
        way = "up" if f.to == SERVER else "down"
        name = f"{Kind(f.kind).name.lower()}_{way}"
        traffic[name] = max(traffic.get(name, 0), len(f.encode()))
    return {
        "clients": clients,
        "dim": size,
        "seconds_all_parties": round(seconds, 3),
        "error_of_the_mean_over_clip": float(np.abs(mean.value - np.mean(updates, axis=0)).max()),
        "bytes_a_client": traffic,
        "params": aggregator.params.describe(),  # type: ignore[attr-defined]
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clients", type=int, default=10)
    args = parser.parse_args()
    calls = {
        "merveil coefficients": own(args.size, args.clients, slots=False),
        "merveil slots": own(args.size, args.clients, slots=True),
        "TenSEAL [60,40,60] public": peer(args.size, [60, 40, 60], symmetric=False),
        "TenSEAL [60,40,40] symmetric": peer(args.size, [60, 40, 40], symmetric=True),
    }
    table = measure(calls, args.repeats, args.size)
    base = table["TenSEAL [60,40,60] public"]["seconds"]
    for name, row in table.items():
        row["speedup_over_60_40_60"] = round(base / row["seconds"], 2)
        print(f"{name:30s} {row['seconds']:.3f} s ({row['fastest']:.3f} to {row['slowest']:.3f}) "
              f"{row['bytes_per_value']:.2f} B a value, {row['speedup_over_60_40_60']:.2f}x")  # fmt: skip
    print(
        json.dumps({"encrypt": table, "round": whole_round(args.clients, min(args.size, 100_000))}, indent=2)
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
