"""`merveil bench`: time and bytes of one round, every client and the server with real keys and frames.

Each measured client starts with empty caches, as it would on a machine of its own. The server runs in its own
process. The `dropouts` clients share, then send no vector.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from types import TracebackType
from typing import Any, Self

import numpy as np

from merveil.cli import OK, print_json
from merveil.cli.bench_server import read, write
from merveil.protocols.api import client_session
from merveil.protocols.codec import Codec, Codes
from merveil.protocols.errors import AbortCode, Aborted, LocalError
from merveil.protocols.frame import Frame
from merveil.protocols.identity import Coordinator, Identity, Roster
from merveil.protocols.ledger import Ledger
from merveil.protocols.params import Params
from merveil.protocols.policy import Policy
from merveil.protocols.registry import get, names
from merveil.protocols.session import ClientSession, Phase

HELP = "time and bytes of one round of a scheme"
_COLD = 25  # clients measured with empty caches; the others only take part


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scheme", choices=names())
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--size", type=int, default=100_000, help="values of one update")
    parser.add_argument("--bits", type=int, default=16, help="grid bits a value")
    parser.add_argument("--dropouts", type=int, default=0, help="clients that share, then send no vector")
    parser.add_argument("--threads", type=int, default=1, help="threads of the server's unmasking")
    parser.add_argument("--keys", choices=("threshold", "authority"), help="who can decrypt (ckks only)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    found = bench(
        args.scheme, args.clients, args.size, args.bits, args.dropouts, args.threads, keys=args.keys
    )
    if args.json:
        print_json(found)
    else:
        shown = {**found, **found.get("ckks", {})}
        shown.pop("ckks", None)
        for name, value in shown.items():
            print(f"{name:26} {value:.6g}" if isinstance(value, float) else f"{name:26} {value}")
    return OK


class Server:
    """The server's process. `receive` and `close` give the frames it sends."""

    def __init__(self, params: Params, roster: Roster, threads: int) -> None:
        command = [sys.executable, "-m", "merveil.cli.bench_server"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        setting = {"params": asdict(params), "roster": roster.data.hex(), "anchor": roster.anchor.hex(),
                   "threads": threads}  # fmt: skip
        self.phase = Phase.IDLE
        write(self._to, json.dumps(setting).encode())  # type: ignore[arg-type]
        self._to.flush()
        self.answer()

    def answer(self) -> list[bytes]:
        """Frames of the call just made, encoded; raises what the session raised."""
        raw = read(self._from)  # type: ignore[arg-type]
        if not raw:
            raise OSError("the server's process ended")
        head = json.loads(raw)
        frames = [read(self._from) for _ in range(head["frames"])]  # type: ignore[arg-type]
        self.phase = Phase(head["phase"])
        if head["error"] is not None:
            code, why = head["error"]
            raise Aborted(AbortCode[code], why) if code else LocalError(why)
        return frames

    def ask(self, kind: bytes, sender: int = 0, data: bytes = b"") -> None:
        write(self._to, kind + sender.to_bytes(2, "big") + data)  # type: ignore[arg-type]
        self._to.flush()

    def receive(self, sender: int, data: bytes) -> list[bytes]:
        self.ask(b"R", sender, data)
        return self.answer()

    def close(self) -> list[bytes]:
        self.ask(b"C")
        return self.answer()

    def result(self) -> tuple[dict[str, Any], Codes]:
        self.ask(b"Q")
        head = json.loads(read(self._from))  # type: ignore[arg-type]
        return head, np.frombuffer(read(self._from), dtype="<i8")  # type: ignore[arg-type]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._to.close()
        self._from.close()
        self._process.wait()


@dataclass
class Meter:
    """Seconds and bytes by client."""

    share: dict[int, float] = field(default_factory=dict)
    mask: dict[int, float] = field(default_factory=dict)
    up: dict[int, int] = field(default_factory=dict)
    down: dict[int, int] = field(default_factory=dict)
    vector: int = 0
    sent: set[int] = field(default_factory=set)

    def timed(self, index: int, call: Callable[[], Sequence[Frame]]) -> Sequence[Frame]:
        """A call before the vector counts as sharing; checks and answers after it are in neither figure."""
        began = time.perf_counter()
        frames = call()
        if index not in self.sent:
            self.share[index] = self.share.get(index, 0.0) + time.perf_counter() - began
        return frames


class Round:
    """All clients of one round, played against a server's process."""

    def __init__(
        self, params: Params, dropouts: int, server: Server, roster: Roster, people: Sequence[Identity]
    ):
        self._params, self._server, self._roster = params, server, roster
        self._people = people
        self._silent = set(range(1, dropouts + 1))
        self._clients: dict[int, ClientSession] = {}
        self._queue: list[bytes] = []
        self._caches = _caches()
        self.meter = Meter()
        self.expected = np.zeros(params.size, dtype=np.int64)

    def _cold(self, index: int) -> None:
        if index > len(self._people) - _COLD:
            for cache in self._caches:
                cache.cache_clear()

    def _send(self, frames: Iterable[Frame]) -> int:
        size = 0
        for f in frames:
            data = f.encode()
            size += len(data)
            self._queue += self._server.receive(f.sender, data)
        return size

    def _count(self, index: int, size: int) -> None:
        self.meter.up[index] = self.meter.up.get(index, 0) + size

    def _join(self, index: int) -> None:
        policy = Policy(
            self._roster.anchor,
            frozenset({self._params.scheme}),
            max_dim=2**31,
            allow_small_cohort=True,
            max_verify_bytes=2**40,
            allow_authority=True,
        )

        def begin() -> Sequence[Frame]:
            session = client_session(
                self._params.scheme, params=self._params, identity=self._people[index - 1], ledger=Ledger(),
                roster=self._roster, policy=policy, model_hash=bytes(32), config_hash=bytes(32), round=1,
            )  # fmt: skip
            self._clients[index] = session
            return session.start()

        self._cold(index)
        self._count(index, self._send(self.meter.timed(index, begin)))

    def _submit(self, index: int, update: np.ndarray) -> None:
        codec = Codec(self._params)
        self._cold(index)
        began = time.perf_counter()
        codes = codec.encode(update)
        frames = self._clients[index].submit(codes)
        self.meter.mask[index] = time.perf_counter() - began
        self.meter.sent.add(index)
        self.expected += codes
        size = self._send(frames)
        self.meter.vector = max(self.meter.vector, size)
        self._count(index, size)

    def _hand_over(self, data: bytes) -> None:
        to = int.from_bytes(data[23:25], "big")
        self.meter.down[to] = self.meter.down.get(to, 0) + len(data)
        if to in self._silent and self.meter.sent:
            return
        self._cold(to)
        frames = self.meter.timed(to, lambda: self._clients[to].receive(0, data))
        self._count(to, self._send(frames))

    def play(self) -> None:
        """The share phases, then the vectors, then whatever follows."""
        for index in range(1, self._params.cohort + 1):
            self._join(index)
        self._drain()
        draws = np.random.default_rng(0)  # updates of a benchmark are no secret
        for index in range(1, self._params.cohort + 1):
            if index not in self._silent:
                self._submit(index, draws.uniform(-1.0, 1.0, self._params.dim) * self._params.clip)
        self._drain()
        while self._server.phase is not Phase.DONE:
            self._queue += self._server.close()
            self._drain()

    def _drain(self) -> None:
        while self._queue:
            self._hand_over(self._queue.pop(0))


def _caches() -> list[Any]:
    """Every module-level cache of the protocol package."""
    modules = [m for name, m in sorted(sys.modules.items()) if name.startswith("merveil.protocols")]
    found = {id(v): v for m in modules for v in vars(m).values() if hasattr(v, "cache_clear")}
    return list(found.values())


def _roster(clients: int) -> tuple[Roster, list[Identity]]:
    people = [Identity.generate(f"client-{i}") for i in range(1, clients + 1)]
    now = int(time.time())
    return Coordinator.generate().sign(
        [p.member for p in people], serial=1, not_before=now - 60, expires=now + 86_400
    ), people


def _params(scheme: str, clients: int, size: int, bits: int, keys: str | None) -> Params:
    if keys is None:
        return get(scheme).params(clients, size, bits=bits)
    if scheme != "ckks":
        raise LocalError(f"--keys is an option of ckks, not of {scheme}")
    from merveil.protocols.ckks import Ckks

    return Ckks().params(clients, size, bits=bits, keys=keys, authority=clients)  # the last one never drops


def bench(
    scheme: str,
    clients: int,
    size: int,
    bits: int,
    dropouts: int,
    threads: int = 1,
    keys: str | None = None,
) -> dict[str, Any]:
    """Measure one round; the JSON of `merveil bench`. Raises Aborted where too many drop."""
    if not 0 <= dropouts < clients:
        raise LocalError(f"{dropouts} dropouts of {clients} clients leave nobody")
    if threads < 1:
        raise LocalError(f"threads must be at least 1, not {threads}")
    params = _params(scheme, clients, size, bits, keys)
    roster, people = _roster(clients)
    with Server(params, roster, threads) as server:
        game = Round(params, dropouts, server, roster, people)
        game.play()
        head, codes = server.result()
    meter = game.meter
    measured = range(max(1, clients - _COLD + 1), clients + 1)
    masked = [meter.mask[i] for i in measured if i in meter.mask] or list(meter.mask.values())
    shares = len(get(scheme).phases) > 1
    own = {"ckks": params.describe()} if scheme == "ckks" else {}  # type: ignore[attr-defined]
    return {
        "scheme": scheme,
        "clients": clients,
        "size": size,
        "bits": bits,
        "dropouts": dropouts,
        "share_seconds": median(meter.share[i] for i in measured) if shares else 0.0,
        "mask_seconds": median(masked),
        "server_seconds": head["server_seconds"],
        "unmask_seconds": head["unmask_seconds"],
        "uplink_bytes_per_value": meter.vector / size,
        "uplink_bytes_per_client": max(meter.up.values()),
        "downlink_bytes_per_client": max(meter.down.values(), default=0),
        "server_peak_bytes": head["peak_bytes"],
        "threshold": params.threshold,
        "neighbours": (params.neighbours or getattr(params, "members", clients - 1)) if shares else 0,
        "threads": threads,
        "exact": bool(np.array_equal(codes, game.expected)) and len(head["survivors"]) == clients - dropouts,
        **own,
    }
