"""Set merveil up and run a job: `python3.11 tools/dev.py demo|test|lint|bench|docs|wheel|mutation [options]`.

Needs nothing but Python 3.11 or newer with its venv module. The first call builds `.venv` from
pyproject.toml and constraints.txt under a temporary name and renames it when it is complete, so a build
that was cut off is never taken for an environment; a stamp of its inputs makes later calls start at once.
Options after the job go to the job, such as `tools/dev.py test tests/fl -x` or `tools/dev.py demo --out D`.
Guarantee: a failed step ends with its exit code and a sentence, never in silence.
"""

from __future__ import annotations  # so that an old Python reaches the sentence about its version

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
OLDEST = (3, 11)
DISK_GB = 6
JOBS = ("demo", "test", "lint", "bench", "docs", "wheel", "mutation")
FACADE = "merveil"


class Stop(Exception):
    """Ends the program with one sentence on stderr and exit code 1."""


def say(text: str) -> None:
    print(f"dev: {text}", file=sys.stderr, flush=True)


# --- what a machine must have


def check_python(version: tuple[int, ...], module_present: bool) -> None:
    """Refuse an old Python, or one without what `venv` needs; Debian packs that part on its own."""
    if version[:2] < OLDEST:
        raise Stop(f"Python {OLDEST[0]}.{OLDEST[1]} or newer is needed, this is {version[0]}.{version[1]}")
    if not module_present:
        package = f"python{version[0]}.{version[1]}-venv"
        raise Stop(f"this Python has no venv or ensurepip module; on Debian or Ubuntu: apt install {package}")


def check_disk(free_bytes: int) -> None:
    if free_bytes < DISK_GB * 10**9:
        raise Stop(f"{DISK_GB} GB of free disk are needed here, {free_bytes / 1e9:.1f} GB are free")


def has_venv() -> bool:
    from importlib.util import find_spec

    return find_spec("venv") is not None and find_spec("ensurepip") is not None


# --- the environment


def python_of(env: Path) -> Path:
    return env / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def inputs_digest(root: Path) -> str:
    """SHA-256 over what decides the environment: dependencies, top folders, pins, Python and place.

    Settings of tools and the list of sub-packages do not count: the editable install finds a new
    sub-package by itself, and editing a lint rule rebuilds nothing.
    """
    import tomllib

    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    parts = {
        "build": project["build-system"],
        "project": project["project"],
        "folders": project["tool"]["setuptools"]["package-dir"],
        "pins": (root / "constraints.txt").read_text(encoding="utf-8"),
        "python": list(sys.version_info[:2]),
        "root": str(root),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def installed_names(env: Path) -> list[str]:
    """Names in the environment's site-packages; a package that somebody deleted is missing here."""
    sites = [*env.glob("lib*/python*/site-packages"), *env.glob("Lib/site-packages")]
    names = {path.name for site in sites for path in site.iterdir()}
    return sorted(names - {"__pycache__"})


def stamp_of(env: Path) -> dict[str, Any] | None:
    """The stamp of an environment that this script completed, or None."""
    try:
        stamp = json.loads((env / "merveil-stamp.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stamp if isinstance(stamp, dict) else None


def write_stamp(env: Path, digest: str) -> None:
    text = json.dumps({"inputs": digest, "names": installed_names(env)})
    (env / "merveil-stamp.json").write_text(text, encoding="utf-8")


def is_ready(env: Path, digest: str) -> bool:
    """True when the stamp fits, nothing that was installed is gone, and its Python starts."""
    stamp = stamp_of(env)
    if stamp is None or stamp.get("inputs") != digest:
        return False
    if not set(stamp.get("names", ["?"])) <= set(installed_names(env)):
        return False
    try:
        probe = subprocess.run(
            [str(python_of(env)), "-c", "import merveil"], capture_output=True, check=False
        )
    except OSError:
        return False
    return probe.returncode == 0


@contextlib.contextmanager
def only_one() -> Iterator[None]:
    """Two calls at once build one environment, not half of two (where the system has file locks)."""
    if os.name == "nt":
        yield
        return
    import fcntl

    with open(ROOT / ".venv-lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def ensure_venv() -> None:
    check_python(sys.version_info[:3], has_venv())
    digest = inputs_digest(ROOT)
    if is_ready(VENV, digest):
        return
    with only_one():
        if not is_ready(VENV, digest):
            build(digest)


def build(digest: str) -> None:
    """Build a fresh environment beside the old one, then put it in the old one's place.

    Every attempt has its own name: a pip that outlived a killed attempt cannot write into the next one.
    """
    for left in ROOT.glob(".venv-building*"):
        shutil.rmtree(left, ignore_errors=True)
    check_disk(shutil.disk_usage(ROOT).free)
    began = time.monotonic()
    say(f"building {VENV.name} for {sys.version.split()[0]}: minutes, once; README has the size")
    building = Path(tempfile.mkdtemp(prefix=".venv-building-", dir=ROOT))
    run([sys.executable, "-m", "venv", "--prompt", FACADE, str(building)], "creating the environment")
    pip = [str(python_of(building)), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    pip += ["-c", "constraints.txt"]
    say("installing torch (1 of 2)")
    run([*pip, "torch"], "installing torch")
    say(f"{time.monotonic() - began:.0f} s; installing merveil with all extras (2 of 2)")
    run([*pip, "-e", ".[all,dev]"], "installing merveil")
    write_stamp(building, digest)
    put_in_place(building)
    say(f"{VENV.name} is ready after {time.monotonic() - began:.0f} s")


def put_in_place(building: Path) -> None:
    """Rename a complete environment to VENV; an environment that is not ours is kept beside it."""
    if VENV.exists() and stamp_of(VENV) is None:
        kept = next(p for i in range(1, 1000) if not (p := ROOT / f".venv-kept-{i}").exists())
        VENV.rename(kept)
        say(f"the former {VENV.name} was not complete or not built here; it is kept as {kept.name}")
    elif VENV.exists():
        shutil.rmtree(VENV)
    rewrite_prefix(building, str(building), str(VENV))
    building.chmod(0o755)
    building.rename(VENV)


def rewrite_prefix(env: Path, old: str, new: str) -> None:
    """Scripts of an environment carry its path: write the final one into them."""
    for path in [env / "pyvenv.cfg", *python_of(env).parent.iterdir()]:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > 100_000:
            continue
        data = path.read_bytes()
        if old.encode() in data and b"\0" not in data:
            path.write_bytes(data.replace(old.encode(), new.encode()))


def run(command: Sequence[str], what: str, cwd: Path = ROOT) -> None:
    """Run one step from the repository's root; a failure stops the program with its sentence."""
    done = subprocess.run(command, cwd=cwd, env=clean_env(), check=False)
    if done.returncode:
        raise Stop(f"{what} failed (exit code {done.returncode})")


def clean_env() -> dict[str, str]:
    """The caller's environment without what would mix another Python's packages into ours."""
    return {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}}


# --- the jobs


def inside(*words: str, cwd: Path = ROOT, **extra: str) -> int:
    """Run `python -m words...` of the environment and hand back its exit code."""
    env = {**clean_env(), **extra}
    return subprocess.run([str(python_of(VENV)), "-m", *words], cwd=cwd, env=env, check=False).returncode


def job_demo(options: Sequence[str]) -> int:
    return inside(FACADE, "demo", *options)


def job_test(options: Sequence[str]) -> int:
    """All tests and quick audits on up to four cores, one file always on one; or pytest with the options."""
    cores = min(os.cpu_count() or 1, 4)
    return inside("pytest", *(options or ["-n", str(cores), "--dist", "loadfile", "tests", "audits"]))


def job_lint(options: Sequence[str]) -> int:
    """ruff, its formatter and mypy --strict on the protocols; every one runs, the first fault is returned."""
    link_types()
    codes = [
        inside("ruff", "check", "."),
        inside("ruff", "format", "--check", "."),
        inside("mypy", "--config-file", "../pyproject.toml", "-p", "merveil.protocols", cwd=ROOT / ".types"),
    ]
    return next((code for code in codes if code), 0)


def link_types() -> None:
    """Links that give mypy the installed shape `merveil.protocols`, which it cannot see by itself.

    An editable install maps the folders through a finder that mypy does not follow.
    """
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folder = ROOT / ".types" / FACADE
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in (ROOT / FACADE).iterdir():
        if path.name != "__pycache__":
            (folder / path.name).symlink_to(path)
    for name, place in project["tool"]["setuptools"]["package-dir"].items():
        if name != FACADE:
            (folder / name.removeprefix(f"{FACADE}.")).symlink_to(ROOT / place)


def job_bench(options: Sequence[str]) -> int:
    """Run the named scripts of benchmarks/, or all of them."""
    names = list(options) or sorted(p.stem for p in (ROOT / "benchmarks").glob("[!_]*.py"))
    for name in names:
        script = ROOT / "benchmarks" / f"{name.removesuffix('.py')}.py"
        if not script.is_file():
            raise Stop(f"there is no benchmark {name}")
        say(f"benchmark {script.stem}")
        done = subprocess.run([str(python_of(VENV)), str(script)], cwd=ROOT, env=clean_env(), check=False)
        if done.returncode:
            return done.returncode
    return 0


def job_docs(options: Sequence[str]) -> int:
    return inside("mkdocs", "build", "--strict", *options, DISABLE_MKDOCS_2_WARNING="true")


def job_wheel(options: Sequence[str]) -> int:
    """Build source archive and wheel into dist/, then install the wheel alone and try it."""
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    run([str(python_of(VENV)), "-m", "build", "--outdir", "dist"], "building the wheel")
    wheel = next((ROOT / "dist").glob("*.whl"))
    return inside("pytest", "tests/house/test_wheel.py", *options, MERVEIL_WHEEL=str(wheel))


def job_mutation(options: Sequence[str]) -> int:
    """Take out one check at a time and expect a test to fail; tools/mutation.py has the options."""
    command = [str(python_of(VENV)), str(ROOT / "tools" / "mutation.py"), *options]
    return subprocess.run(command, cwd=ROOT, env=clean_env(), check=False).returncode


def main(words: Sequence[str]) -> int:
    if not words or words[0] not in JOBS:
        print(__doc__, file=sys.stderr)
        return 2
    job = {"demo": job_demo, "test": job_test, "lint": job_lint}
    job |= {"bench": job_bench, "docs": job_docs, "wheel": job_wheel, "mutation": job_mutation}
    try:
        ensure_venv()
        return job[words[0]](words[1:])
    except Stop as stop:
        say(str(stop))
        return 1
    except KeyboardInterrupt:
        say("interrupted")
        return 130


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
