"""Five hospitals train one model on loopback, each a process of its own, with one fault in every round.

    python examples/hospitals/run.py [--keep FOLDER]

    round 1   north is killed in mid-round                    a dropout; the others' sum
    round 2   it is back; south is killed and started again   it goes on in mid-round; all five in the sum
    round 3   west signs two different adverts                named, left out; the others' sum
    round 4   the server is killed in mid-round and started   it goes on after round 3; all five in the sum
              again
    round 5   nothing                                         all five in the sum

Then a second federation, in which two of five are killed at once: four are needed, so it ends with exit
code 3. All keys and files are made by the commands that a real federation uses. The clips are made up, so
the model is worth nothing.
"""

import argparse
import contextlib
import ctypes
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from merveil.mer.data.archive import save_archive

NAMES = ("north", "south", "west", "east", "centre")
SECONDS = 300.0  # a bound for failures; what happens waits for states, never for seconds
PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>
HERE = Path(__file__).parent
# On a busy machine a process takes long to start: that must not make a dropout.
PATIENT = {"gather_seconds": 300, "wait_seconds": 300, "phase_seconds": 300}


class Federation:
    """Folders of a coordinator, a server and five hospitals, and their processes."""

    def __init__(self, root: Path, rounds: int, **server: object) -> None:
        self.root, self.run = root, root / "server" / "run"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.merveil("federation", "init", "hq")
        for name in NAMES:
            invitation = ("--federation", "hq/federation.json")
            self.merveil("federation", "identity", name, "--name", name, *invitation)
            self.merveil("federation", "add", "hq", f"{name}/request.bin")
        self.merveil("federation", "sign", "hq", "--days", "7")
        (root / "server").mkdir()
        port = _free_port()
        settings = {"listen": f"127.0.0.1:{port}", **PATIENT, "grace_seconds": 20, **server}
        lines = ["[server]", *(f"{k} = {json.dumps(v)}" for k, v in settings.items())]
        lines += ["[train]", f"rounds = {rounds}", 'scheme = "secagg"']
        (root / "server" / "federation.toml").write_text("\n".join(lines) + "\n")
        self.merveil("server", "--config", "server/federation.toml", "--new-certificate", "127.0.0.1")
        for i, name in enumerate(NAMES):
            _clips(root / name / "clips.npz", i)
            text = f'[site]\nserver = "127.0.0.1:{port}"\ndata = "clips.npz"\nretry_seconds = 1\n'
            (root / name / "federation.toml").write_text(text)
            (root / name / "tls.crt").write_bytes((root / "server" / "tls.crt").read_bytes())
        for place in ("server", *NAMES):
            for file in ("federation.json", "roster.bin"):
                (root / place / file).write_bytes((root / "hq" / file).read_bytes())

    def merveil(self, *words: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "merveil", *words],
            cwd=self.root,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"merveil {' '.join(words)}: {done.stderr}")

    def start(self, name: str, fault: str = "") -> subprocess.Popen[bytes]:
        """A process of its own, with a fault where one is named."""
        config = f"{name}/federation.toml"
        words = [
            sys.executable,
            "-m",
            "merveil",
            "server" if name == "server" else "site",
            "--config",
            config,
        ]
        if fault:
            status = str(self.run / "status.json")
            words = [sys.executable, str(HERE.resolve() / "faulty.py"), config, fault, status]
        return self.launch(name, words, self.root, {**os.environ, "OMP_NUM_THREADS": "1"})

    def launch(
        self, name: str, words: list[str], folder: Path, environment: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        """Any command as this party's process; its log is NAME.log."""
        with (self.root / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                words, cwd=folder, stdout=log, stderr=log, env=environment, preexec_fn=_end_with_parent
            )
        return self.processes[name]

    def until(self, what: str, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not true():
            if time.monotonic() > deadline:
                logs = "\n".join(p.read_text()[-1500:] for p in sorted(self.root.glob("*.log")))
                raise TimeoutError(f"waited {SECONDS:.0f} s for {what}\n{logs}")
            time.sleep(0.05)

    def lines(self) -> list[dict[str, object]]:
        file = self.run / "metrics.jsonl"
        text = file.read_text() if file.exists() else ""
        return [json.loads(line) for line in text.split("\n")[:-1] if line]

    def waiting(self) -> tuple[int, list[str]]:
        """Number of the protocol round under way, and for whom the server waits."""
        file = self.run / "status.json"
        value = json.loads(file.read_text()) if file.exists() else {"protocol_round": 0, "waiting_for": []}
        return value["protocol_round"], value["waiting_for"]

    def ended(self, name: str) -> int:
        process = self.processes[name]
        self.until(f"the end of {name}", lambda: process.poll() is not None)
        return int(process.returncode)

    def close(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()


def _end_with_parent() -> None:
    """Runs in a new process: should this script be killed, the system ends the process too (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _free_port() -> int:
    """Below the ports of outgoing connections, so that none takes it while the server restarts."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _clips(path: Path, seed: int) -> None:
    """Made-up flow maps of three classes: two persons a hospital."""
    rng = np.random.default_rng(seed)
    n = 8 + 2 * seed
    y = np.arange(n) % 3
    x = rng.integers(0, 60, (n, 28, 28, 3)).astype(np.uint8)
    for i, label in enumerate(y):
        x[i, 6 * label : 6 * label + 10] += 120
    person = np.array([f"p{i % 2}" for i in range(n)])
    names = np.array([f"c{i}" for i in range(n)])
    save_archive(path, x=x, y=y, dataset=np.full(n, path.parent.name), subject=person, clip=names)


# The secure class count is protocol round 1, so round r of the training is protocol round r + 1.
# A second advert counts while the phase is open, so somebody else answers that exchange last. The server is
# killed in mid-round, so somebody holds that round up.
FAULTS = {
    "north": "killed@2.1.2",
    "south": "killed@3.1.3",
    "west": "doubled@4.1.0",
    "centre": "last@4.1.0",
    "east": "held@5.1.1",
}


def five_rounds(root: Path) -> list[dict[str, object]]:
    """One fault a round; the lines of metrics.jsonl."""
    federation = Federation(root, 5)
    try:
        federation.start("server")
        for name in NAMES:
            federation.start(name, FAULTS.get(name, ""))
        assert federation.ended("north") == 9
        federation.until("round 1", lambda: len(federation.lines()) >= 1)  # without north, after its grace
        federation.start("north")
        assert federation.ended("south") == 9
        federation.start("south")
        federation.until("round 4 to wait for east", lambda: federation.waiting() == (5, ["east"]))
        federation.processes["server"].kill()
        federation.processes["server"].wait()
        federation.start("server")
        assert federation.ended("server") == 0
        for name in NAMES:
            assert federation.ended(name) == 0, name
        return federation.lines()
    finally:
        federation.close()


def two_at_once(root: Path) -> int:
    """Two killed in one round: the server's exit code."""
    federation = Federation(root, 5, grace_seconds=1, attempts=1, max_aborted=1)
    try:
        federation.start("server")
        for name in NAMES:
            federation.start(name, {"north": "killed@2.1.2", "east": "killed@2.1.2"}.get(name, ""))
        code = federation.ended("server")
        assert "BELOW_THRESHOLD" in (root / "server.log").read_text()
        return code
    finally:
        federation.close()


def show(lines: list[dict[str, object]]) -> None:
    for line in lines:
        named = f", named: {line['excluded']}" if line["excluded"] else ""
        print(f"round {int(str(line['round'])) + 1}: in the sum {', '.join(line['names'])}{named}")  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work here and leave everything")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        root = args.keep or Path(place)
        for name in ("five", "two"):
            (root / name).mkdir(parents=True)
        lines = five_rounds(root / "five")
        show(lines)
        assert [line["round"] for line in lines] == [0, 1, 2, 3, 4]
        assert lines[0]["names"] == [name for name in NAMES if name != "north"]
        assert lines[1]["survivors"] == 5, "south went on in mid-round"
        assert lines[2]["excluded"] == {"west": "DOUBLE_CLAIM"} and lines[2]["survivors"] == 4
        assert lines[3]["survivors"] == 5 and lines[4]["survivors"] == 5, "after the server's restart"
        code = two_at_once(root / "two")
        print(f"two of five killed at once: the server gives up with exit code {code}")
        assert code == 3


if __name__ == "__main__":
    main()
