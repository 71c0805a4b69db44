"""tools/dev.py: clear refusals, a stamp that notices damage, an environment that survives its renaming."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def dev(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A copy of the script that believes the repository to be in tmp_path."""
    spec = importlib.util.spec_from_file_location("merveil_dev_script", ROOT / "tools" / "dev.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    return module


def empty_env(dev: ModuleType, where: Path) -> Path:
    """A real environment without pip, in which `import merveil` works."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(where)], check=True)
    site = next(where.glob("lib/*/site-packages"))
    (site / "merveil.py").write_text("", encoding="utf-8")
    (site / "other.py").write_text("", encoding="utf-8")
    return site


def test_refusals_say_what_to_do(dev: ModuleType) -> None:
    with pytest.raises(dev.Stop, match=r"Python 3\.11 or newer is needed, this is 3\.9"):
        dev.check_python((3, 9, 1), True)
    with pytest.raises(dev.Stop, match=r"apt install python3\.11-venv"):
        dev.check_python((3, 11, 2), False)
    with pytest.raises(dev.Stop, match=r"6 GB of free disk are needed here, 1\.5 GB are free"):
        dev.check_disk(1_500_000_000)
    dev.check_python((3, 11, 0), True)
    dev.check_disk(6 * 10**9)


@pytest.mark.skipif(os.name == "nt", reason="paths of a POSIX environment")
def test_stamp_notices_damage_and_changed_inputs(dev: ModuleType) -> None:
    site = empty_env(dev, dev.VENV)
    digest = dev.inputs_digest(dev.ROOT)
    assert not dev.is_ready(dev.VENV, digest)  # no stamp: half built, or not ours
    dev.write_stamp(dev.VENV, digest)
    assert dev.is_ready(dev.VENV, digest)
    assert not dev.is_ready(dev.VENV, "another digest")
    (site / "added_by_hand.py").write_text("", encoding="utf-8")
    assert dev.is_ready(dev.VENV, digest)
    (site / "other.py").unlink()
    assert not dev.is_ready(dev.VENV, digest)
    dev.write_stamp(dev.VENV, digest)
    dev.python_of(dev.VENV).unlink()
    assert not dev.is_ready(dev.VENV, digest)
    (dev.VENV / "merveil-stamp.json").write_text("{", encoding="utf-8")
    assert dev.stamp_of(dev.VENV) is None


def test_digest_follows_dependencies_and_pins_but_not_lint_rules(dev: ModuleType) -> None:
    before = dev.inputs_digest(dev.ROOT)
    project = dev.ROOT / "pyproject.toml"
    project.write_text(project.read_text().replace("line-length = 110", "line-length = 90"))
    assert dev.inputs_digest(dev.ROOT) == before
    pins = dev.ROOT / "constraints.txt"
    pins.write_text(pins.read_text() + "six==1.17.0\n")
    changed = dev.inputs_digest(dev.ROOT)
    assert changed != before
    project.write_text(project.read_text().replace('"numpy>=1.26,<3"', '"numpy>=2,<3"'))
    assert dev.inputs_digest(dev.ROOT) not in {before, changed}


@pytest.mark.skipif(os.name == "nt", reason="paths of a POSIX environment")
def test_renamed_environment_works_and_a_foreign_one_is_kept(dev: ModuleType) -> None:
    building = dev.ROOT / ".venv-building-1"
    empty_env(dev, building)
    script = building / "bin" / "tool"
    script.write_text(f"#!{dev.python_of(building)}\nimport sys\nprint(sys.prefix)\n", encoding="utf-8")
    script.chmod(0o755)
    dev.write_stamp(building, "d")
    dev.VENV.mkdir()
    (dev.VENV / "mine").write_text("kept", encoding="utf-8")
    dev.put_in_place(building)
    assert (dev.ROOT / ".venv-kept-1" / "mine").read_text() == "kept"
    assert not building.exists()
    done = subprocess.run([dev.VENV / "bin" / "tool"], capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()) == dev.VENV
    assert str(building) not in (dev.VENV / "bin" / "activate").read_text()
    assert json.loads((dev.VENV / "merveil-stamp.json").read_text())["inputs"] == "d"


def test_failing_step_stops_with_its_name_and_code(dev: ModuleType) -> None:
    with pytest.raises(dev.Stop, match=r"the trial failed \(exit code 7\)"):
        dev.run([sys.executable, "-c", "raise SystemExit(7)"], "the trial")


def test_old_python_can_read_the_script() -> None:
    """The sentence about the version must be printed by the Python it is about."""
    import ast

    source = (ROOT / "tools" / "dev.py").read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 8))
    assert "from __future__ import annotations" in source


def test_unknown_job_prints_the_jobs_and_fails() -> None:
    command = [sys.executable, str(ROOT / "tools" / "dev.py"), "deploy"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "demo|test|lint|bench|docs|wheel" in done.stderr
