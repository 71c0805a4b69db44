"""An NVFlare job whose workflow is secure sums: five clients in NVFlare's simulator, three rounds.

    python examples/nvflare_job/job.py          (pip install "merveil[nvflare]")

The keys are made by the commands that a real federation uses; all of them lie in one folder here, so this is
to try things. In a deployment every client has its own folder and MERVEIL_HOME names it.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from nvflare.private.fed.app.simulator.simulator_runner import SimulatorRunner
from trainer import points

CLIENTS, ROUNDS = [f"site-{i}" for i in range(1, 6)], 3


def keys(root: Path) -> None:
    """Folders hq, server and one a client."""

    def merveil(*words: str) -> None:
        subprocess.run([sys.executable, "-m", "merveil", "federation", *words], cwd=root, check=True)

    merveil("init", "hq")
    for name in CLIENTS:
        merveil("identity", name, "--name", name, "--federation", "hq/federation.json")
        merveil("add", "hq", f"{name}/request.bin")
    merveil("sign", "hq", "--days", "7")
    (root / "server").mkdir()
    for place in ("server", *CLIENTS):
        for file in ("federation.json", "roster.bin"):
            (root / place / file).write_bytes((root / "hq" / file).read_bytes())


def write_job(root: Path, folder: Path) -> None:
    """A job as NVFlare reads it: meta.json, the two configurations, and the user's own code."""
    controller = {
        "home": str(root / "server"),
        "model": str(root / "start.npz"),
        "out": str(root / "model.npz"),
        "rounds": ROUNDS,
        "clip": 4.0,
        "max_weight": 64,
    }
    executor = {"executor": {"path": "trainer.LeastSquares", "args": {}}, "homes": str(root)}
    server = [{"id": "secure", "path": "merveil.fl.nvflare.controller.SecureController", "args": controller}]
    client = [
        {
            "tasks": ["merveil"],
            "executor": {"path": "merveil.fl.nvflare.executor.SecureExecutor", "args": executor},
        }
    ]
    files = {
        "meta.json": {"name": "secure", "min_clients": 4, "deploy_map": {"app": ["@ALL"]}},
        "app/config/config_fed_server.json": {"format_version": 2, "workflows": server},
        "app/config/config_fed_client.json": {"format_version": 2, "executors": client},
    }
    for name, value in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(value, indent=1))
    (folder / "app" / "custom").mkdir()
    shutil.copy(Path(__file__).with_name("trainer.py"), folder / "app" / "custom" / "trainer.py")


def in_clear(weights: np.ndarray) -> np.ndarray:
    """The same rounds as a weighted mean without protection."""
    for _ in range(ROUNDS):
        steps, sizes = [], []
        for x, y in map(points, CLIENTS):
            steps.append(-0.3 * x.T @ (x @ weights - y) / len(y))
            sizes.append(len(y))
        weights = weights + np.average(steps, axis=0, weights=sizes)
    return weights


def main(root: Path) -> None:
    keys(root)
    np.savez(root / "start.npz", weights=np.zeros(4))
    write_job(root, root / "job")
    runner = SimulatorRunner(
        str(root / "job"), str(root / "workspace"), ",".join(CLIENTS), threads=len(CLIENTS)
    )
    assert runner.run() == 0
    found = np.load(root / "model.npz", allow_pickle=False)["weights"]
    gap = float(np.abs(found - in_clear(np.zeros(4))).max())
    print(f"weights {np.round(found, 3)}, largest difference to the clear mean {gap:.1e}")
    assert gap < 1e-3


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as place:
        main(Path(place))
