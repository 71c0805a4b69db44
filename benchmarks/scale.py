"""secagg+ simulated to the end with many clients: what one client pays as the cohort grows.

    python benchmarks/scale.py [--clients 1000 10000] [--size 10000] [--dropped 0.05] [--json]

All clients live in this process, one after the other. Per-client seconds are medians over the clients, stage
by stage; the first round under a roster includes the static agreements with every neighbour.
"""

import argparse
import json
import math
import resource
import statistics
import sys
import time
from typing import Any

import numpy as np

from merveil.protocols.api import client_session, server_session
from merveil.protocols.codec import Codec
from merveil.protocols.identity import Coordinator, Identity
from merveil.protocols.ledger import Ledger
from merveil.protocols.policy import Policy
from merveil.protocols.registry import get


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def enrol(n: int) -> tuple[list[Identity], Any]:
    coordinator = Coordinator.generate()
    identities = [Identity.generate(f"c{i}") for i in range(n)]
    now = int(time.time())
    members = [i.member for i in identities]
    return identities, coordinator.sign(members, serial=1, not_before=now - 1, expires=now + 10**6)


class Meter:
    """Seconds of a client's calls and bytes of its frames, by client."""

    def __init__(self) -> None:
        self.seconds: dict[str, dict[int, float]] = {}
        self.up: dict[int, int] = {}
        self.down: dict[int, int] = {}
        self.server = 0.0

    def client(self, index: int, stage: str, call: Any, *args: Any) -> list[bytes]:
        begun = time.perf_counter()
        frames = [f.encode() for f in call(*args)]
        bucket = self.seconds.setdefault(stage, {})
        bucket[index] = bucket.get(index, 0.0) + time.perf_counter() - begun
        self.up[index] = self.up.get(index, 0) + sum(map(len, frames))
        return frames


def one_round(n: int, size: int, dropped: float) -> dict[str, Any]:
    say(f"n = {n}: enrolling")
    identities, roster = enrol(n)
    params = get("secagg+").params(n, size)
    policy = Policy(anchor=roster.anchor)
    common: dict[str, Any] = {
        "params": params,
        "roster": roster,
        "model_hash": bytes(32),
        "config_hash": bytes(32),
        "round": 1,
    }
    server = server_session("secagg+", **common)
    clients = {
        i: client_session("secagg+", identity=who, policy=policy, ledger=Ledger(), **common)
        for i, who in enumerate(identities, 1)
    }
    silent = set(np.random.default_rng(1).permutation(n)[: int(dropped * n)] + 1)
    alive = {i: c for i, c in clients.items() if i not in silent}
    meter, codec = Meter(), Codec(params)
    begun = time.perf_counter()
    server.start()
    truth: Any = 0

    def to_server(index: int, frames: list[bytes]) -> list[Any]:
        start = time.perf_counter()
        found = [server.receive(index, data) for data in frames]
        meter.server += time.perf_counter() - start
        return [batch for batch in found if len(batch)]

    def spread(batches: list[Any], stage: str, to: dict[int, Any]) -> list[Any]:
        say(f"n = {n}: {stage}, {time.perf_counter() - begun:.0f} s")
        following = []
        for batch in batches:
            for at in range(len(batch)):
                start = time.perf_counter()
                frame = batch[at]
                data = frame.encode()
                meter.server += time.perf_counter() - start
                meter.down[frame.to] = meter.down.get(frame.to, 0) + len(data)
                if frame.to in to:
                    answers = meter.client(frame.to, stage, to[frame.to].receive, 0, data)
                    following += to_server(frame.to, answers)
        return following

    batches = []
    for i, client in clients.items():
        batches += to_server(i, meter.client(i, "advertise", client.start))
    batches = spread(batches, "share", clients)
    spread(batches, "open", alive)
    rng, batches = np.random.default_rng(2), []
    for i, client in alive.items():
        codes = codec.encode(rng.uniform(-1, 1, size))
        truth = truth + codes
        batches += to_server(i, meter.client(i, "mask", client.submit, codes))
    if not batches:
        batches = [server.close_phase()]
    batches = spread(batches, "check", alive)
    spread(batches, "answer", alive)
    exact = bool((server.result().codes == truth).all())
    medians = {stage: statistics.median(by.values()) for stage, by in meter.seconds.items()}
    return {
        "clients": n,
        "size": size,
        "dropped": len(silent),
        "neighbours": params.neighbours,
        "threshold": params.threshold,
        "exact": exact,
        "client_seconds": sum(medians.values()),
        "by_stage": medians,
        "uplink_bytes": statistics.median(meter.up[i] for i in alive),
        "downlink_bytes": statistics.median(meter.down[i] for i in alive),
        "server_seconds": meter.server,
        "seconds": time.perf_counter() - begun,
        "process_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--size", type=int, default=10_000)
    parser.add_argument("--dropped", type=float, default=0.05)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = [one_round(n, args.size, args.dropped) for n in args.clients]
    if args.json:
        json.dump(rows, sys.stdout)
        print()
        return 0
    for row in rows:
        stages = ", ".join(f"{k} {v * 1e3:.2f}" for k, v in row["by_stage"].items())
        print(
            f"n = {row['clients']}, d = {row['size']}, {row['dropped']} dropped, k = {row['neighbours']},"
            f" t = {row['threshold']}: client {row['client_seconds'] * 1e3:.1f} ms ({stages}),"
            f" up {row['uplink_bytes'] / 1e3:.0f} kB, down {row['downlink_bytes'] / 1e3:.0f} kB,"
            f" server {row['server_seconds']:.1f} s, exact = {row['exact']}"
        )
    if len(rows) > 1:
        first, last = rows[0], rows[-1]
        grown = last["client_seconds"] / first["client_seconds"]
        logs = math.log(last["clients"]) / math.log(first["clients"])
        degree = last["neighbours"] / first["neighbours"]
        print(f"per-client cost grew {grown:.2f}x; log n grew {logs:.2f}x, the degree k {degree:.2f}x")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
