"""The wheel alone with the core's two dependencies, in a fresh environment: imports, sums, stays light.

MERVEIL_WHEEL names a wheel that was built before (tools/dev.py wheel); without it one is built here.
Needs what pip needs: a registry or a folder with numpy, cryptography and setuptools.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("merveil", "protocols", "fl", "mer", "attacks", "audits")
HEAVY = ["torch", "cv2", "tenseal", "flwr", "opacus", "numba", "matplotlib"]

MEAN = """
import json, sys
import merveil
after_import = sorted(set(HEAVY) & set(sys.modules))
import numpy as np
updates = [np.full(5, value) for value in (0.25, 0.5, 0.75)]
done = merveil.SecureAggregator("plain").mean(updates, coins=[np.full(5, 0.5)] * 3)
print(json.dumps({
    "file": merveil.__file__,
    "mean": done.value.tolist(),
    "survivors": list(done.survivors),
    "after_import": after_import,
    "after_mean": sorted(set(HEAVY) & set(sys.modules)),
}))
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command that must succeed; its errors are shown when it does not."""
    env = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel made from a source archive, as a release is, so that both are complete.

    Built from a copy: the checkout stays as it is, and leftovers of earlier builds stay out of the wheel.
    """
    if given := os.environ.get("MERVEIL_WHEEL"):
        return Path(given)
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    run(sys.executable, "-m", "build", "--outdir", out, source, cwd=out)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def core(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment that holds the wheel and the core's dependencies, nothing else."""
    env = tmp_path_factory.mktemp("core") / "env"
    run(sys.executable, "-m", "venv", env, cwd=env.parent)
    python = env / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    run(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel, cwd=env.parent)
    return python


@pytest.mark.slow
def test_wheel_holds_every_module_and_data_file(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    folders = {name: "merveil" if name == "merveil" else f"merveil/{name}" for name in FOLDERS}
    wanted = {
        f"{place}/{path.relative_to(ROOT / name).as_posix()}"
        for name, place in folders.items()
        for path in (ROOT / name).rglob("*")
        if path.is_file() and path.suffix in {".py", ".typed", ".j2", ".json", ".html"}
    }
    assert wanted - packed == set()
    assert not any(name.startswith(("tests/", "tools/", "benchmarks/")) for name in packed)


@pytest.mark.slow
def test_core_imports_light_and_runs_a_plain_mean(core: Path, tmp_path: Path) -> None:
    found = json.loads(run(core, "-c", f"HEAVY = {HEAVY}\n{MEAN}", cwd=tmp_path))
    assert "site-packages" in found["file"]
    assert found["mean"] == pytest.approx([0.5] * 5, abs=1e-4)
    assert found["survivors"] == [0, 1, 2]
    assert found["after_import"] == found["after_mean"] == []


@pytest.mark.slow
def test_core_command_line_answers_and_names_a_missing_extra(core: Path, tmp_path: Path) -> None:
    command = core.parent / ("merveil.exe" if os.name == "nt" else "merveil")
    version = run(command, "--version", cwd=tmp_path).strip()
    assert version == run(core, "-c", "import merveil; print(merveil.__version__)", cwd=tmp_path).strip()
    missing = "from merveil.mer.extras import need; need('torch', 'mer')"
    done = subprocess.run([core, "-c", missing], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "pip install 'merveil[mer]'" in done.stderr


@pytest.mark.slow
def test_every_light_module_of_the_wheel_imports_with_the_core_alone(core: Path, tmp_path: Path) -> None:
    """All verbs and protocol modules load without any extra; only running a verb may ask for one."""
    code = (
        "import importlib, pkgutil, merveil.cli, merveil.protocols\n"
        "for package in (merveil.cli, merveil.protocols):\n"
        "    for found in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if not found.name.startswith(('merveil.protocols.lattice', 'merveil.protocols.ckks')):\n"
        "            importlib.import_module(found.name)\n"
    )
    run(core, "-c", code, cwd=tmp_path)
