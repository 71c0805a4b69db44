"""Rounds over a real SuperLink with SuperNodes on loopback: unsecured, Flower's SecAgg+, and behind the mod.

    python benchmarks/flower_round.py [--nodes 5] [--rounds 3] [--features 30] [--arms clear,secure,flower]
                                      [--preloaded]

TLS and node authentication are on, telemetry and installation at run time are off, nothing leaves the
machine. The app is a softmax regression in numpy as one would write it for Flower (benchmarks/flower_app);
the secured one differs from it by the lines that this script prints. `seconds`: of a round as the server
app sees it, with its evaluation unless --no-evaluate; median over rounds. `bytes`: what a node sends in
answer to training messages, a round. Timings on a shared machine vary; compare the arms. --preloaded
forks the nodes' programs off one process that has imported them (flower_forks.py): 50 nodes do not
otherwise fit in 24 GB.
"""

import argparse
import contextlib
import difflib
import io
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from merveil.cli import main as merveil
from merveil.fl.deploy.tls import CERTIFICATE, KEY, new_certificate

BIN = Path(sys.executable).parent

PROJECT = """[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "1.0.0"
description = "softmax regression"
license = "Apache-2.0"
dependencies = []

[tool.hatch.build.targets.wheel]
packages = ["."]

[tool.flwr.app]
publisher = "nobody"

[tool.flwr.app.components]
serverapp = "flower_app.{server}:app"
clientapp = "flower_app.{client}:app"

[tool.flwr.app.config]
num-server-rounds = 3
nodes = 5
features = 30
evaluate = 1.0
out = ""
"""

# What securing the app changes: (file, old, new). Nothing else differs.
CHANGES = [
    ("client_app.py", "app = ClientApp(mods=[counted])", "app = ClientApp(mods=[counted, SecureMod()])"),
    (
        "client_app.py",
        "from flwr.clientapp import ClientApp\n",
        "from flwr.clientapp import ClientApp\nfrom merveil.fl.flower import SecureMod\n",
    ),
    (
        "server_app.py",
        "    times = [time.time()]",
        "    strategy = secured(strategy, clip=8.0)\n    times = [time.time()]",
    ),
    (
        "server_app.py",
        "from flwr.serverapp.strategy import FedAvg\n",
        "from flwr.serverapp.strategy import FedAvg\nfrom merveil.fl.flower import secured\n",
    ),
]
APP = Path(__file__).parent / "flower_app"
ARMS = ("clear", "secure", "flower")


def write_app(folder: Path, arm: str) -> str:
    """The app's folder, and the diff of a secured one against the unsecured."""
    package = folder / APP.name
    package.mkdir(parents=True)
    files = {path.name: path.read_text(encoding="utf-8") for path in sorted(APP.glob("*.py"))}
    before = dict(files)
    if arm == "secure":
        for file, old, new in CHANGES:
            if files[file].count(old) != 1:
                raise RuntimeError(f"{file} has no single {old!r}")
            files[file] = files[file].replace(old, new)
    sides = ("legacy_server", "legacy_client") if arm == "flower" else ("server_app", "client_app")
    project = (
        PROJECT.replace("{name}", folder.name).replace("{server}", sides[0]).replace("{client}", sides[1])
    )
    (folder / "pyproject.toml").write_text(project)
    diff: list[str] = []
    for file, text in files.items():
        (package / file).write_text(text)
        diff += difflib.unified_diff(
            before[file].splitlines(), text.splitlines(), file, file, n=0, lineterm=""
        )
    return "\n".join(diff)


def make_federation(root: Path, nodes: int) -> list[Path]:
    """Keys and roster through the command line, as an operator would."""

    def run(*words: str) -> None:
        with contextlib.redirect_stderr(io.StringIO()):
            if merveil(["federation", *words]) != 0:
                raise RuntimeError(f"merveil federation {' '.join(words)} failed")

    hq, homes = root / "hq", [root / f"site-{i}" for i in range(nodes)]
    run("init", str(hq))
    for home in homes:
        run("identity", str(home), "--name", home.name, "--federation", str(hq / "federation.json"))
        run("add", str(hq), str(home / "request.bin"))
    run("sign", str(hq), "--days", "30")
    server = root / "server"
    server.mkdir()
    for home in [server, *homes]:
        for name in ("federation.json", "roster.bin"):
            (home / name).write_bytes((hq / name).read_bytes())
    return homes


def node_key(folder: Path) -> Path:
    """A SuperNode's own key for Flower's node authentication; returns the public one's file."""
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    (folder / "node.key").write_bytes(private)
    (folder / "node.key").chmod(0o600)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    (folder / "node.pub").write_bytes(public)
    return folder / "node.pub"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# Ends process groups when this script's end of the pipe closes, however the script ended.
_WATCH = """
import os, signal, sys, time
groups = [int(line) for line in sys.stdin]
for kind in (signal.SIGTERM, signal.SIGKILL):
    for group in groups:
        try:
            os.killpg(group, kind)
        except ProcessLookupError:
            pass
    time.sleep(0.0 if kind == signal.SIGKILL else 3.0)
"""


class Watchdog:
    """Engine processes start processes of their own, and would outlive a script that is killed."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WATCH], stdin=subprocess.PIPE, start_new_session=True
        )

    def add(self, group: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{group}\n".encode())
        self._process.stdin.flush()

    def close(self) -> None:
        """Everything has ended, so nothing is left to do for it."""
        self._process.kill()
        self._process.communicate()


class Engine:
    """A SuperLink and SuperNodes as processes of their own session, all ended by `close`, or by a watchdog
    should this process be killed."""

    def __init__(self, root: Path, nodes: int, timeout: float, preloaded: bool = False) -> None:
        self.root, self.nodes, self.timeout = root, nodes, timeout
        self.shims = root / "bin" if preloaded else None
        self.homes = make_federation(root, nodes)
        self.port = free_port()
        new_certificate(root, ["127.0.0.1", "localhost"])
        self.environment = {
            **os.environ,
            "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
            "FLWR_HOME": str(root / "flwr"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "OMP_NUM_THREADS": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
            "MERVEIL_HOME": str(root / "server"),
        }
        self.processes: list[subprocess.Popen[bytes]] = []
        self.watchdog = Watchdog()
        (root / "flwr").mkdir()
        (root / "flwr" / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "127.0.0.1:{self.port}"\n'
            f'root-certificates = "{root / CERTIFICATE}"\n'
        )

    def program(self, name: str) -> Path:
        """The engine's program of that name, or what has it forked."""
        shim = self.shims / name if self.shims else None
        return shim if shim and shim.exists() else BIN / name

    def _open_forks(self) -> None:
        """A process of its own from which nodes are forked, with the nodes' environment."""
        assert self.shims is not None
        address = self.root / "forks.sock"
        self.environment["PATH"] = f"{self.shims}{os.pathsep}{self.environment['PATH']}"
        script = Path(__file__).with_name("flower_forks.py")
        server = self.start("forks", sys.executable, str(script), str(self.shims), str(address))
        deadline = time.monotonic() + self.timeout
        while not address.exists():
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the nodes' programs could not be loaded: {self.log('forks')}")
            time.sleep(0.1)

    def start(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        log = (self.root / f"{name}.log").open("wb")
        process = subprocess.Popen(
            [str(self.program(words[0])), *words[1:]],
            env=self.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        log.close()
        self.watchdog.add(process.pid)
        self.processes.append(process)
        return process

    def open(self) -> None:
        certificate, key = str(self.root / CERTIFICATE), str(self.root / KEY)
        self.start(
            "superlink", "flower-superlink", "--host", "127.0.0.1", "--port", str(self.port),
            "--ssl-certfile", certificate, "--ssl-keyfile", key, "--ssl-ca-certfile", certificate,
            "--enable-supernode-auth", "--disable-runtime-dependency-installation",
        )  # fmt: skip
        self._wait_for_port()
        if self.shims:  # after the SuperLink, which starts its own programs as it always does
            self._open_forks()
        with ThreadPoolExecutor(4) as pool:  # the command takes seconds to start, and little else
            keys = [str(node_key(home)) for home in self.homes]
            list(pool.map(lambda key: self.flwr("supernode", "register", key, "here"), keys))
        for i, home in enumerate(self.homes):
            config = f'partition-id={i} num-partitions={self.nodes} merveil-home="{home}"'
            self.start(
                home.name, "flower-supernode", "--superlink", f"127.0.0.1:{self.port}",
                "--root-certificates", certificate, "--auth-supernode-private-key", str(home / "node.key"),
                "--port", str(free_port()), "--node-config", config,
            )  # fmt: skip

    def _wait_for_port(self) -> None:
        deadline = time.monotonic() + self.timeout
        while time.monotonic() < deadline and self.processes[0].poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.2)
        raise RuntimeError(f"the SuperLink did not come up: {self.log('superlink')}")

    def flwr(self, *words: str) -> str:
        done = subprocess.run(
            [str(BIN / "flwr"), *words], env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"flwr {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def log(self, name: str) -> str:
        return (self.root / f"{name}.log").read_text(errors="replace")[-3000:]

    def run(self, app: Path, **config: Any) -> dict[str, Any]:
        """Run an app to its end and read what its server side wrote."""
        out = self.root / f"{app.name}.json"
        given = {"out": str(out), "nodes": self.nodes, **config}
        words = " ".join(f"{k}={json.dumps(v)}" for k, v in given.items())
        self.flwr("run", str(app), "here", "--run-config", words)
        deadline = time.monotonic() + self.timeout
        while not out.exists():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{app.name} did not finish: {self.log('superlink')}")
            time.sleep(0.1)
        time.sleep(0.2)
        return dict(json.loads(out.read_text()))

    def replied(self) -> int:
        """Bytes that all nodes have sent in answer to training messages so far."""
        files = [home / "bytes.txt" for home in self.homes]
        return sum(int(line.split()[1]) for f in files if f.exists() for line in f.read_text().splitlines())

    def close(self) -> None:
        for process in reversed(self.processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            with contextlib.suppress(ProcessLookupError):  # what the engine itself left behind
                os.killpg(process.pid, signal.SIGKILL)
        self.watchdog.close()


@contextlib.contextmanager
def engine(nodes: int, timeout: float, preloaded: bool = False) -> Iterator[Engine]:
    with tempfile.TemporaryDirectory() as folder:
        found = Engine(Path(folder), nodes, timeout, preloaded)
        try:
            found.open()
            yield found
        finally:
            found.close()


def measure(
    nodes: int,
    rounds: int,
    features: int,
    arms: Sequence[str],
    timeout: float,
    evaluate: bool = True,
    preloaded: bool = False,
) -> dict[str, Any]:
    found: dict[str, Any] = {"nodes": nodes, "rounds": rounds, "values": 3 * features + 3, "arms": {}}
    found["preloaded"] = preloaded
    with engine(nodes, timeout, preloaded) as running:
        for arm in arms:
            diff = write_app(running.root / f"app{arm}", arm)
            settings = {"features": features, "evaluate": float(evaluate), "num-server-rounds": rounds}
            before = running.replied()
            result = running.run(running.root / f"app{arm}", **settings)
            gaps = [b - a for a, b in zip(result["times"], result["times"][1:])]
            found["arms"][arm] = {
                "seconds": statistics.median(gaps),
                "seconds_all": gaps,
                "accuracy": result["accuracy"].get(str(rounds)),
                "arrays": result["arrays"],
                "bytes": (running.replied() - before) / nodes / rounds,
            }
            if arm == "secure":
                found["diff"] = diff
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--features", type=int, default=30)
    parser.add_argument("--no-evaluate", action="store_true", help="train only: five exchanges a round")
    parser.add_argument("--arms", default="clear,secure")
    parser.add_argument("--preloaded", action="store_true", help="fork the nodes off one loaded process")
    parser.add_argument("--timeout", type=float, default=300.0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = measure(
        args.nodes,
        args.rounds,
        args.features,
        args.arms.split(","),
        args.timeout,
        not args.no_evaluate,
        args.preloaded,
    )
    if args.json:
        print(json.dumps(found))
        return 0
    print(f"n = {found['nodes']}, {found['values']} values, {found['rounds']} rounds")
    for arm, row in found["arms"].items():
        print(
            f"{arm:8} {row['seconds']:7.2f} s a round, accuracy {row['accuracy']}, "
            f"{row['bytes']:.0f} B up a node and round"
        )
    print(found.get("diff", ""))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
