"""The server of `merveil bench`, in a process of its own, so that its memory and time are its own.

It reads length-prefixed requests from stdin and answers on stdout: `R` sender(2) frame, `C` close the phase,
`Q` the result. An answer is one JSON header and as many length-prefixed frames as the header says.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

from merveil.protocols.api import server_session
from merveil.protocols.errors import Aborted, MerveilError
from merveil.protocols.frame import Frame
from merveil.protocols.identity import Roster
from merveil.protocols.registry import get, params_from


def write(stream: BinaryIO, data: bytes) -> None:
    stream.write(len(data).to_bytes(4, "big"))
    stream.write(data)


def read(stream: BinaryIO) -> bytes:
    """One length-prefixed message; b"" where the stream ends."""
    size = int.from_bytes(stream.read(4), "big")
    return stream.read(size) if size else b""


def peak_bytes() -> int:
    """Largest resident size of this process. On Linux from the kernel's own line: getrusage also counts the
    parent's size at the fork, before this program was loaded."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak
    line = next(row for row in status.splitlines() if row.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])


class Bench:
    """One server session and the time it took. seconds: before the last phase; unmask: in it."""

    def __init__(self, setting: dict[str, Any]) -> None:
        params = params_from(setting["params"])
        threads = setting["threads"]
        self._last = get(params.scheme).phases[-1] if len(get(params.scheme).phases) > 1 else None
        self.server = server_session(
            params.scheme,
            params=params,
            roster=Roster.open(bytes.fromhex(setting["roster"]), bytes.fromhex(setting["anchor"])),
            model_hash=bytes(32),
            config_hash=bytes(32),
            round=1,
            executor=ThreadPoolExecutor(threads) if threads > 1 else None,
        )
        getattr(get(params.scheme), "warm_up", lambda: None)()
        self.seconds = self.unmask = 0.0

    def call(self, move: Callable[[], Sequence[Frame]], out: BinaryIO) -> None:
        """Run one call, and send what it gives one frame at a time."""
        phase, began = self.server.phase, time.perf_counter()
        error, frames = None, ()  # type: tuple[str, str] | None, Sequence[Frame]
        try:
            frames = move()
        except Aborted as abort:
            error = (abort.code.name, str(abort))
        except MerveilError as fault:
            error = ("", str(fault))
        took = time.perf_counter() - began
        self._note(phase, took)
        head = {"phase": self.server.phase.value, "error": error, "frames": len(frames)}
        write(out, json.dumps(head).encode())
        for at in range(len(frames)):
            began = time.perf_counter()
            data = frames[at].encode()  # built when it is asked for
            self._note(phase, time.perf_counter() - began)
            write(out, data)
        out.flush()

    def _note(self, phase: Any, seconds: float) -> None:
        if phase is self._last:
            self.unmask += seconds
        else:
            self.seconds += seconds

    def result(self, out: BinaryIO) -> None:
        done = self.server.result()
        head = {
            "survivors": list(done.survivors),
            "server_seconds": self.seconds,
            "unmask_seconds": self.unmask,
            "peak_bytes": peak_bytes(),
        }
        write(out, json.dumps(head).encode())
        write(out, done.codes.astype("<i8").tobytes())
        out.flush()


def main() -> int:
    source, out = sys.stdin.buffer, sys.stdout.buffer
    bench = Bench(json.loads(read(source)))
    bench.call(bench.server.start, out)
    while request := read(source):
        kind, sender, data = request[:1], int.from_bytes(request[1:3], "big"), request[3:]
        if kind == b"R":
            bench.call(lambda sender=sender, data=data: bench.server.receive(sender, data), out)  # type: ignore[misc]
        elif kind == b"C":
            bench.call(bench.server.close_phase, out)
        else:
            bench.result(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
