"""One round over a real SuperLink and five SuperNodes on loopback, with TLS and node authentication."""

import importlib.util
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


def benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("flower_round", ROOT / "benchmarks" / "flower_round.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def expected(source: str, nodes: int, features: int) -> dict[str, np.ndarray]:
    """The weighted mean of what the nodes would send in clear."""
    task: dict[str, Any] = {}
    exec(source, task)
    found, sizes = [], []
    for i in range(nodes):
        (x, y), _ = task["load"](i, nodes, features)
        weights, bias, _ = task["fit"](np.zeros((features, 3)), np.zeros(3), x, y)
        found.append((weights, bias))
        sizes.append(len(y))
    return {
        name: np.average([f[at] for f in found], axis=0, weights=sizes)
        for at, name in enumerate(("weights", "bias"))
    }


@pytest.mark.slow
def test_one_round_over_the_real_engine() -> None:
    module = benchmark()
    found = module.measure(5, 1, 6, ["secure"], 240.0, evaluate=False)
    clear = expected((module.APP / "task.py").read_text(), 5, 6)
    for name, value in found["arms"]["secure"]["arrays"].items():
        np.testing.assert_allclose(value, clear[name], atol=2e-3)


# What runs when the test is killed: an engine process, which has started one of its own.
_KILLED = """
import subprocess, sys, importlib.util, time
spec = importlib.util.spec_from_file_location("flower_round", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
watchdog = module.Watchdog()
code = "import subprocess, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"
child = subprocess.Popen(
    [sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE, text=True
)
watchdog.add(child.pid)
print(child.pid, child.stdout.readline().strip(), flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads processes from /proc")
def test_no_process_of_the_engine_outlives_a_script_that_is_killed() -> None:
    words = [sys.executable, "-c", _KILLED, str(ROOT / "benchmarks" / "flower_round.py")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as script:
        assert script.stdout is not None
        pids = [int(word) for word in script.stdout.readline().split()]
        assert len(pids) == 2 and all(alive(pid) for pid in pids)
        script.kill()
    deadline = time.monotonic() + 120
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline, pids
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Neither gone nor a zombie that nobody waits for."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_securing_the_app_takes_five_lines(tmp_path: Path) -> None:
    module = benchmark()
    diff = module.write_app(tmp_path / "app", "secure").splitlines()
    added = [line for line in diff if line.startswith("+") and not line.startswith("+++")]
    assert len(added) <= 5, added


def test_preloaded_programs_run_the_engines_own_with_the_callers_words_and_output(tmp_path: Path) -> None:
    shims, address = tmp_path / "bin", tmp_path / "s"
    script = ROOT / "benchmarks" / "flower_forks.py"
    with subprocess.Popen([sys.executable, str(script), str(shims), str(address)]) as server:
        deadline = time.monotonic() + 120
        while not address.exists():
            assert server.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        try:
            for name, said in (("flower-supernode", "--superlink"), ("flwr-clientapp", "--token")):
                done = subprocess.run([shims / name, "--help"], capture_output=True, text=True, timeout=120)
                assert done.returncode == 0 and said in done.stdout and "Traceback" not in done.stderr
            done = subprocess.run(
                [shims / "flwr-clientapp", "--wrong"], capture_output=True, text=True, timeout=120
            )
            assert "usage: flwr-clientapp" in done.stderr and done.stdout == ""
        finally:
            server.terminate()
