"""The examples run as they are, each as a process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(script: str, folder: Path, seconds: float) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_pytorch_loop(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    assert "dropped out in mid-round" in run("pytorch_loop.py", tmp_path, 300)


def test_logistic_coefficients(tmp_path: Path) -> None:
    assert "largest difference to the clear mean" in run("logistic_coefficients.py", tmp_path, 120)


def test_the_https_service(tmp_path: Path) -> None:
    assert "survivors (1, 2, 4, 5)" in run("https_service.py", tmp_path, 120)


@pytest.mark.slow
def test_five_hospitals_with_a_fault_in_every_round(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out = run("hospitals/run.py", tmp_path, 900).splitlines()
    assert len(out) == 6
    assert "named: {'west': 'DOUBLE_CLAIM'}" in out[2] and out[5].endswith("exit code 3")
