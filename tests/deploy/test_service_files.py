"""Dockerfile, compose file and systemd units say what the program has: commands, paths, users, ports, extras.

The commands are run as well, in folders that stand for those of the files: nothing here starts a container or
systemd itself.
"""

import configparser
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from merveil.cli import build_parser
from merveil.fl.deploy.config import ServerSettings, address

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "examples" / "hospitals"
UNITS = ("merveil-server.service", "merveil-site.service")
SETTINGS, STATE = "/etc/merveil", "/var/lib/merveil"
PROGRAM = (sys.executable, "-m", "merveil")


def unit(name: str) -> configparser.ConfigParser:
    found = configparser.ConfigParser(strict=False, interpolation=None)
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read(HERE / name)
    return found


def unit_commands(name: str) -> list[list[str]]:
    service = unit(name)["Service"]
    return [shlex.split(service[key]) for key in ("ExecStartPre", "ExecStart") if key in service]


def binary() -> str:
    """The program as the server's unit names it."""
    return unit_commands(UNITS[0])[-1][0]


def compose() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    return dict(yaml.safe_load((HERE / "compose.yaml").read_text(encoding="utf-8")))


def image() -> dict[str, list[str]]:
    """The Dockerfile's instructions: name -> arguments, in order."""
    found: dict[str, list[str]] = {}
    for line in (HERE / "Dockerfile").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, rest = line.partition(" ")
            found.setdefault(name, []).append(rest)
    return found


# What the files name


@pytest.mark.parametrize("name", UNITS)
def test_systemd_takes_the_unit(name: str, tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    text = (HERE / name).read_text(encoding="utf-8").replace(binary(), sys.executable)  # it must exist there
    (tmp_path / name).write_text(text)
    done = subprocess.run(
        [program, "verify", str(tmp_path / name)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_calls_commands_that_exist_and_may_write_where_they_write(name: str) -> None:
    service = unit(name)["Service"]
    assert service["User"] == "merveil" and service["ProtectSystem"] == "strict"
    assert service["ReadWritePaths"].split() == [STATE, SETTINGS] and service["WorkingDirectory"] == STATE
    for program, *words in unit_commands(name):
        assert Path(program).name == "merveil" and program == binary()
        assert build_parser(words[0]).parse_args(words).verb == words[0]
        for word in words:
            assert not word.startswith("/") or word.startswith(SETTINGS + "/")
    codes = {int(code) for code in service["RestartPreventExitStatus"].split()}
    assert codes == {2, 3}, "bad settings and protocol aborts, as docs/cli.md has them"


def test_the_compose_file_fits_the_command_and_the_image() -> None:
    value, made = compose(), image()
    assert set(value["services"]) == {"server", "north", "south", "west", "east", "centre"}
    assert value["networks"]["federation"]["internal"] is True
    (folder,) = made["WORKDIR"]
    for name, service in value["services"].items():
        words = service["command"]
        assert words[0] == ("server" if name == "server" else "site")
        assert build_parser(words[0]).parse_args(words).verb == words[0]
        assert service["volumes"] == [f"./{name}:{folder}"] and service["networks"] == ["federation"]
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
        assert "ports" not in service, "sites listen on nothing, and the server on the inner network only"
    text = (HERE / "compose.yaml").read_text(encoding="utf-8")
    ports = {address(found)[1] for found in re.findall(r'"([\w.]+:\d+)"', text)}
    assert ports == {address(ServerSettings.listen)[1]}


def test_the_dockerfile_names_what_the_project_has() -> None:
    made, project = image(), tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = re.fullmatch(r"python:(\d+\.\d+)-slim", made["FROM"][0])
    assert version and project["requires-python"] == f">={version[1]}"
    assert made["COPY"] == [". /src"]
    install = next(run for run in made["RUN"] if "pip install" in run)
    assert (ROOT / re.findall(r"-c /src/(\S+)", install)[0]).is_file()
    assert set(re.findall(r'"/src\[([\w,]+)\]"', install)[0].split(",")) <= set(
        project["optional-dependencies"]
    )
    (user,) = made["USER"]
    (uid,) = re.findall(rf"useradd --create-home --uid (\d+) {user}", made["RUN"][0])
    assert f"uid {uid}" in (HERE / "compose.yaml").read_text(encoding="utf-8")
    assert made["ENTRYPOINT"] == ['["merveil"]'] and "merveil" in project["scripts"]
    ignored = (HERE / "Dockerfile.dockerignore").read_text().splitlines()
    assert {".git", ".venv*", "**/*.key", "**/ledger"} <= set(ignored), "no key and no history in an image"


# What they start


def hospitals() -> Any:
    spec = importlib.util.spec_from_file_location("hospitals_run", HERE / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def as_unit(name: str, home: Path) -> tuple[list[list[str]], Path, dict[str, str]]:
    """Commands, working folder and environment of a unit whose /etc/merveil is `home`."""
    state = home / "state"
    state.mkdir()
    commands = [
        [*PROGRAM, *(word.replace(SETTINGS, str(home)) for word in words)]
        for _, *words in unit_commands(name)
    ]
    key, _, value = unit(name)["Service"]["Environment"].partition("=")
    return commands, state, {key: value}


def as_container(name: str, home: Path) -> tuple[list[list[str]], Path, dict[str, str]]:
    """Command, working folder and environment of a service whose /work is `home`."""
    given = dict(pair.split("=") for pair in image()["ENV"][0].split())
    return [[*PROGRAM, *compose()["services"][name]["command"]]], home, given


def test_what_the_files_start_trains_to_the_end(tmp_path: Path) -> None:
    """Server and two hospitals as their units start them, three hospitals as the compose file does."""
    pytest.importorskip("torch")
    pytest.importorskip("yaml")
    module = hospitals()
    federation = module.Federation(tmp_path, 1)
    try:
        for name in ("server", *module.NAMES):
            if name in ("server", "north", "south"):
                file = UNITS[0] if name == "server" else UNITS[1]
                commands, folder, given = as_unit(file, tmp_path / name)
            else:
                commands, folder, given = as_container(name, tmp_path / name)
            for words in commands[:-1]:
                subprocess.run(words, cwd=folder, check=True, capture_output=True)
            federation.launch(name, commands[-1], folder, {**os.environ, **given})
        for name in ("server", *module.NAMES):
            assert federation.ended(name) == 0, (tmp_path / f"{name}.log").read_text()
        (line,) = federation.lines()
        assert line["survivors"] == 5
        for name in module.NAMES:
            assert (tmp_path / name / "ledger").stat().st_mode & 0o077 == 0
    finally:
        federation.close()
