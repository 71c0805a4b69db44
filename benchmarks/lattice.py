"""`lattice` beside `secagg+` and Flower's SecAgg+, in one run: time of a client and of the server, and bytes.

    python benchmarks/lattice.py [--repeats 15] [--size 1000000] [--clients 100] [--round-size 100000]
                                 [--skip-flower] [--scale] [--json]

1. One client's masking of `size` 16-bit codes, one thread, with the table of where time goes; the figure is
   from codes to the signed frame, `encode` (floats to codes, the same in every scheme) apart. Best and median
   of wall-clock time, and the best of the thread's own processor time, which a busy machine disturbs less.
2. The server's add of one upload (check, then add) against a plain copy of the same bytes; both go round
   several buffers that together exceed the caches.
3. Bytes a value, frame and committee shares included, at 1,700, 55,000 and 1M values.
4. Unmasking with no dropouts and with 30 %, alternating.
5. Rounds of `round-size` values: `lattice`, `secagg+` and Flower alternate (the helpers of vs_flower.py).
6. With --scale: 10,000 clients of 10,000 values, to the end.
"""

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from merveil.protocols.codec import Codec
from merveil.protocols.identity import Coordinator, Identity
from merveil.protocols.lattice import Lattice, encryption, kernels, packed, ring
from merveil.protocols.lattice import messages as msg
from merveil.protocols.lattice.committee import committee
from merveil.protocols.lattice.params import LatticeParams
from merveil.protocols.lattice.sampling import fresh, gaussians, public
from merveil.protocols.policy import Policy
from merveil.protocols.rng import SystemRng

Row = dict[str, Any]
RNG = SystemRng()
CONTEXT = bytes(32)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def milliseconds(call: Callable[[], Any], repeats: int, prepare: Callable[[], Any] | None = None) -> Row:
    """Best and median of `repeats` calls, after one that warms up."""
    spent, own = [], []
    for i in range(repeats + 1):
        given = () if prepare is None else (prepare(),)
        begun, busy = time.perf_counter(), time.thread_time()
        call(*given)
        if i:
            spent.append(1e3 * (time.perf_counter() - begun))
            own.append(1e3 * (time.thread_time() - busy))
    return {
        "best": round(min(spent), 3),
        "median": round(statistics.median(spent), 3),
        "processor": round(min(own), 3),
    }


def make_params(clients: int, size: int) -> LatticeParams:
    found = Lattice().params(clients, size)
    assert isinstance(found, LatticeParams)
    return found


def one_client(size: int, clients: int, repeats: int) -> Row:
    """Where a client's time goes."""
    p, draws = make_params(clients, size), np.random.default_rng(0)
    layout, codec = p.layout, Codec(p)
    update = draws.uniform(-1, 1, size)
    codes = codec.encode(update)
    secret = encryption.Key.draw(p.degree, RNG).take()
    each = encryption._each(p.digits, layout)
    message = np.zeros((-(-layout.values // each), layout.count), dtype=np.uint64)
    factors = [ring.secret_factors(p.degree, q, secret) for q in layout.primes]
    masks = [public(CONTEXT, p.degree, layout.groups, r, q) for r, q in enumerate(layout.primes)]
    error = gaussians(fresh(RNG, "bench"), layout.count)
    step = [
        (x[: layout.count], message, error, q, pow(q, -1, 2**32), 1, 1) for x, q in zip(masks, layout.primes)
    ]
    identity = Identity.generate("bench")
    body = bytes(msg.upload_size(p))

    def frame() -> bytes:
        from merveil.protocols.frame import Frame

        return Frame(msg.SUITE, 1, CONTEXT[:16], 1, 0, body).signed(identity.sign_key, CONTEXT).encode()

    whole = milliseconds(
        lambda key: encryption.mask(p, CONTEXT, key, codes, RNG),
        repeats,
        lambda: encryption.Key.draw(p.degree, RNG),
    )
    signing = milliseconds(frame, repeats)
    parts = {
        "public polynomials (AES-CTR, rejection)": lambda: [
            public(CONTEXT, p.degree, layout.groups, r, q) for r, q in enumerate(layout.primes)
        ],
        "transform of the key": lambda: [ring.secret_factors(p.degree, q, secret) for q in layout.primes],
        "product and inverse transforms": lambda: [
            ring.multiply(x, f, p.degree, q) for x, f, q in zip(masks, factors, layout.primes)
        ],
        "errors": lambda: gaussians(fresh(RNG, "bench"), layout.count),
        "digits gathered": lambda: kernels.gather(message, codes, p.levels, p.digits.radix, each),
        "digits to residues, error and mask added": lambda: [kernels.add_message(*s) for s in step],
        "packing": lambda: [encryption.pack(x[: layout.count], b) for x, b in zip(masks, layout.bits)],
    }
    table = {name: milliseconds(call, repeats) for name, call in parts.items()}
    table["frame: SHA-256, signature, copies"] = signing
    return {
        "size": size,
        "clients": clients,
        "degree": p.degree,
        "mask_ms": whole,
        "with_frame_ms": {k: round(whole[k] + signing[k], 3) for k in whole},
        "encode_ms": milliseconds(lambda: codec.encode(update), max(3, repeats // 3)),
        "deal_ms": milliseconds(lambda: packed.share(p, secret, RNG), repeats),
        "parts_ms": table,
    }


def server_add(size: int, clients: int, repeats: int) -> Row:
    """One upload checked and added, against a copy of its bytes, both on memory that is not in a cache."""
    p, codes = make_params(clients, size), np.zeros(size, dtype=np.int64)
    uploads = [
        encryption.mask(p, CONTEXT, encryption.Key.draw(p.degree, RNG), codes, RNG)
        for _ in range(max(4, 64_000_000 // make_params(clients, size).layout.size))
    ]
    total = encryption.Total(p.layout)
    target = [np.empty(len(u), dtype=np.uint8) for u in uploads]

    def add() -> None:
        for data in uploads:
            total.add(encryption.residues(p.layout, data))

    def check() -> None:
        for data in uploads:
            encryption.canonical(p.layout, encryption.residues(p.layout, data))

    def copy() -> None:
        for out, data in zip(target, uploads):
            np.copyto(out, np.frombuffer(data, dtype=np.uint8))

    found: dict[str, list[float]] = {"add": [], "check": [], "copy": []}
    for i in range(max(3, repeats // 2) + 1):
        for name, call in (("copy", copy), ("add", add), ("check", check)):
            begun = time.perf_counter()
            call()
            if i:
                found[name].append(time.perf_counter() - begun)
    best = {name: min(t) / len(uploads) for name, t in found.items()}
    return {
        "bytes": p.layout.size,
        "ms": {name: round(1e3 * t, 3) for name, t in best.items()},
        "gb_per_second": {name: round(p.layout.size / t / 1e9, 2) for name, t in best.items()},
        "add_over_copy": round(best["copy"] / best["add"], 2),
        "check_and_add_over_copy": round(best["copy"] / (best["add"] + best["check"]), 2),
    }


def sizes() -> list[Row]:
    """The whole of what a client on no committee sends, by cohort and length."""
    rows = []
    for clients in (24, 100, 1_000, 10_000):
        for size in (1_700, 55_000, 1_000_000):
            p = make_params(clients, size)
            whole = 29 + 64 + msg.upload_size(p)
            rows.append(
                {
                    "clients": clients,
                    "size": size,
                    "degree": p.degree,
                    "values": p.layout.values,
                    "log2_q": p.layout.modulus_bits,
                    "bytes": whole,
                    "bytes_per_value": round(whole / size, 3),
                    "ciphertext": round(p.layout.size / size, 3),
                    "information": round(float(np.log2(p.digits.radix)) / 8, 3),
                }
            )
    return rows


def unmasking(size: int, clients: int, repeats: int) -> Row:
    """The server from the answers to the sum, with nobody and with 30 % dropped, alternating: processor time,
    since rounds lie seconds apart and a busy machine would decide the ratio."""
    found: dict[float, list[float]] = {0.0: [], 0.3: []}
    exact = True
    for i in range(repeats + 1):
        for dropped in found:
            row = one_round(clients, size, dropped)
            exact = exact and row["exact"]
            if i:
                found[dropped].append(row["unmask_processor"])
    best = {k: min(t) for k, t in found.items()}
    return {
        "size": size,
        "clients": clients,
        "ms": {f"{int(100 * k)} %": round(1e3 * t, 2) for k, t in best.items()},
        "ratio": round(best[0.3] / best[0.0], 3),
        "exact": exact,
    }


def dropouts(p: LatticeParams, roster: Any, share: float) -> set[int]:
    """Clients that send nothing: the same share of the committee as of the others, so that a quorum is left.

    Drawn over all clients alike, 30 % leave a committee of 30 short in every fourth round
    (docs/lattice.md).
    """
    draws, everyone = np.random.default_rng(1), tuple(range(1, p.cohort + 1))
    board = committee(p, roster, everyone)
    others = [i for i in everyone if i not in board]
    chosen = [draws.permutation(group)[: int(share * len(group))] for group in (board, others)]
    return {int(i) for group in chosen for i in group}


def one_round(clients: int, size: int, dropped: float) -> Row:
    """A round of real sessions, every client after the other; `dropped` of them send nothing."""
    from merveil.protocols.api import client_session, server_session
    from merveil.protocols.ledger import Ledger

    identities = [Identity.generate(f"c{i}") for i in range(clients)]
    now = int(time.time())
    roster = Coordinator.generate().sign(
        [i.member for i in identities], serial=1, not_before=now - 1, expires=now + 10**6
    )
    p, policy = make_params(clients, size), Policy(anchor=roster.anchor)
    common = {"params": p, "roster": roster, "model_hash": bytes(32), "config_hash": bytes(32), "round": 1}
    server = server_session("lattice", **common)
    server.start()
    silent = dropouts(p, roster, dropped)
    codes = np.random.default_rng(2).integers(-p.levels, p.levels + 1, p.size)
    sessions, down, own = {}, [], {"client": [], "receive": 0.0, "last": 0.0}
    for i, who in enumerate(identities, 1):
        if i in silent:
            continue
        begun = time.perf_counter()
        session = client_session("lattice", identity=who, policy=policy, ledger=Ledger(), **common)
        session.start()
        data = session.submit(codes)[0].encode()
        own["client"].append(time.perf_counter() - begun)
        if session.phase.value == "CHECK":
            sessions[i] = session
        begun = time.perf_counter()
        down += server.receive(i, data)
        own["receive"] += time.perf_counter() - begun
    if server.phase.value == "MASKED":
        down += server.close_phase()
    member, unmask, last = [], 0.0, 0.0
    while server.phase.value != "DONE":
        if not down:
            down = list(server.close_phase())
        batch, down = list(down), []
        for f in batch:
            begun = time.perf_counter()
            answers = sessions[f.to].receive(0, f.encode())
            member.append(time.perf_counter() - begun)
            for a in answers:
                begun, busy = time.perf_counter(), time.thread_time()
                down += server.receive(a.sender, a.encode())
                last, own["last"] = time.perf_counter() - begun, time.thread_time() - busy
    unmask = last  # the last answer is the one that opens the sum
    total = server.result()
    return {
        "clients": clients,
        "size": size,
        "dropped": len(silent),
        "client": statistics.median(own["client"]),
        "receive": own["receive"],
        "member": max(member),
        "unmask": unmask,
        "unmask_processor": own["last"],
        "exact": bool(np.array_equal(total.codes, codes * (clients - len(silent)))),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def side_by_side(clients: int, size: int, drop: int, flower: bool) -> list[Row]:
    """One round each of lattice, secagg+ and Flower, `drop` of the clients sending no vector."""
    import vs_flower

    updates = [np.random.default_rng(i).uniform(-0.5, 0.5, size) for i in range(clients)]
    rows = []
    for turn in range(2):
        ours = one_round(clients, size, drop / clients)
        if turn:
            rows.append(
                {
                    "what": "merveil lattice",
                    "client": ours["client"],
                    "unmask": ours["unmask"],
                    "server": ours["receive"] + ours["unmask"],
                    "bytes_per_value": (93 + msg.upload_size(make_params(clients, size))) / size,
                    "exact": ours["exact"],
                }
            )
            found = vs_flower.merveil_round("secagg+", updates, drop)
            rows.append({**found, "client": found["share"] + found["mask"]})
            if flower:
                found = vs_flower.flower_round(updates, drop, 25)
                rows.append({**found, "client": found["share"] + found["mask"]})
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--round-size", type=int, default=100_000)
    parser.add_argument("--drop", type=int, default=10)
    parser.add_argument("--skip-flower", action="store_true")
    parser.add_argument("--scale", action="store_true", help="10,000 clients of 10,000 values")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    result: Row = {}
    say("a client")
    result["client"] = one_client(args.size, args.clients, args.repeats)
    say("the server's add")
    result["add"] = server_add(args.size, args.clients, args.repeats)
    result["sizes"] = sizes()
    say("unmasking")
    result["unmask"] = unmasking(args.round_size, 40, max(3, args.repeats // 3))
    say("side by side")
    result["rounds"] = side_by_side(args.clients, args.round_size, args.drop, not args.skip_flower)
    if args.scale:
        say("10,000 clients")
        result["scale"] = [one_round(n, 10_000, 0.05) for n in (1_000, 10_000)]
    if args.json:
        json.dump(result, sys.stdout)
        print()
    else:
        show(result)
    return 0


def show(result: Row) -> None:
    c = result["client"]
    print(f"client, {c['size']} values of 16 bits, n = {c['clients']}, N = {c['degree']}, milliseconds")
    for name, t in c["parts_ms"].items():
        print(
            f"  {name:44} best {t['best']:7.3f}  median {t['median']:7.3f}  processor {t['processor']:7.3f}"
        )
    for name in ("mask_ms", "with_frame_ms", "encode_ms", "deal_ms"):
        t = c[name]
        print(
            f"  {name:44} best {t['best']:7.3f}  median {t['median']:7.3f}  processor {t['processor']:7.3f}"
        )
    print("server add:", json.dumps(result["add"]))
    for row in result["sizes"]:
        print("  ", json.dumps(row))
    print("unmask:", json.dumps(result["unmask"]))
    for row in result["rounds"]:
        print(
            f"{row['what']:34} client {1e3 * row['client']:9.2f} ms  unmask {row['unmask']:8.4f} s"
            f"  server {row['server']:8.3f} s  {row['bytes_per_value']:.2f} B/value  exact={row['exact']}"
        )
    for row in result.get("scale", []):
        print(json.dumps(row))


if __name__ == "__main__":
    raise SystemExit(main())
