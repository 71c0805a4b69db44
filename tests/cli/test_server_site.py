"""`merveil server` and `merveil site` as processes of their own, from the files that the commands make."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from merveil.cli import main
from merveil.mer.data.archive import save_archive

SERVER = """[server]
listen = "127.0.0.1:{port}"
gather_seconds = 300
grace_seconds = 0.5

[train]
rounds = 2
scheme = "secagg"
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def federation(tmp_path: Path, toy_data: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    """Folders hq, server, s1 .. s5 with all files; the server's port."""
    monkeypatch.chdir(tmp_path)
    port = free_port()
    assert main(["federation", "init", "hq"]) == 0
    for i in range(1, 6):
        home = f"s{i}"
        assert (
            main(["federation", "identity", home, "--name", home, "--federation", "hq/federation.json"]) == 0
        )
        assert main(["federation", "add", "hq", f"{home}/request.bin"]) == 0
        save_archive(tmp_path / home / "clips.npz", **toy_data(persons=2, clips=4, seed=i))
        (tmp_path / home / "federation.toml").write_text(
            f'[site]\nserver = "127.0.0.1:{port}"\ndata = "clips.npz"\nretry_seconds = 0.5\n'
        )
    assert main(["federation", "sign", "hq"]) == 0
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "federation.toml").write_text(SERVER.format(port=port))
    assert main(["server", "--config", "server/federation.toml", "--new-certificate", "127.0.0.1"]) == 0
    for home in ("server", *(f"s{i}" for i in range(1, 6))):
        for name in ("federation.json", "roster.bin"):
            (tmp_path / home / name).write_bytes((tmp_path / "hq" / name).read_bytes())
        if home != "server":
            (tmp_path / home / "tls.crt").write_bytes((tmp_path / "server" / "tls.crt").read_bytes())
    return port


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "merveil", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_a_training_over_processes(federation: int, schema: Any, capsys: pytest.CaptureFixture[str]) -> None:
    server = start("server", "--config", "server/federation.toml", "--json")
    sites = [start("site", "--config", f"s{i}/federation.toml", "--json") for i in range(1, 6)]
    try:
        out, err = server.communicate(timeout=300)
        assert server.returncode == 0, err
        assert schema.check(json.loads(out), schema.load("server")) == []
        for site in sites:
            out, err = site.communicate(timeout=300)
            assert site.returncode == 0, err
            found = json.loads(out)
            assert schema.check(found, schema.load("site")) == []
            assert found["rounds"] == 3  # the counts and two rounds of training
    finally:
        for process in (server, *sites):
            process.kill()
            process.wait()
    capsys.readouterr()
    assert main(["server", "--config", "server/federation.toml", "--status", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert schema.check(found, schema.load("server-status")) == []
    assert (found["rounds_done"], found["phase"]) == (2, "finished")


NOISE = """dp = "distributed"
epsilon = 8.0
delta = 1e-3
norm_clip = 1.0
"""


def test_a_training_with_noise_over_processes(
    federation: int, schema: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two rounds of which the sites' own limits pay one: every party says by what name it ended."""
    from merveil.fl.deploy.private import LEDGER
    from merveil.fl.dp import epsilon_of_rounds, mechanism_for
    from merveil.fl.dp_ledger import Budget
    from merveil.fl.options import read_config, resolve

    path = Path("server/federation.toml")
    path.write_text(path.read_text() + NOISE)
    options = resolve(read_config(path)["train"])
    mechanism = mechanism_for(options, 1683, 5, Budget(None, "f", 8.0, 1e-3))
    once = epsilon_of_rounds(mechanism, 1, 1e-3)
    for i in range(1, 6):
        figures = f"dp_epsilon = {once!r}\ndp_delta = 1e-3\ndp_norm_clip = 1.0\n"
        Path(f"s{i}/policy.toml").write_text(figures)
    server = start("server", "--config", "server/federation.toml", "--json")
    sites = [start("site", "--config", f"s{i}/federation.toml", "--json") for i in range(1, 6)]
    try:
        out, err = server.communicate(timeout=300)
        assert server.returncode == 0, err
        found = json.loads(out)
        assert schema.check(found, schema.load("server")) == []
        assert (found["status"], found["rounds"]) == ("budget_spent", 1)
        assert (found["privacy"]["unit"], found["privacy"]["epsilon"]) == ("client", once)
        assert "BUDGET_SPENT: stopped after round 1 of 2" in err
        for site in sites:
            out, err = site.communicate(timeout=300)
            assert site.returncode == 0, err
            found = json.loads(out)
            assert schema.check(found, schema.load("site")) == []
            assert (found["rounds"], found["privacy"]["uploads"]) == (1, 1)
            assert found["privacy"]["epsilon"] == once and "budget is spent" in found["last"]
            assert "BUDGET_SPENT: this site sits the round out" in err
    finally:
        for process in (server, *sites):
            process.kill()
            process.wait()
    assert Path("s1", LEDGER).stat().st_mode & 0o777 == 0o600
    capsys.readouterr()
    assert main(["server", "--config", "server/federation.toml", "--status", "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert schema.check(status, schema.load("server-status")) == []
    assert (status["phase"], status["privacy"]["epsilon"]) == ("budget_spent", once)
    assert main(["server", "--config", "server/federation.toml", "--status"]) == 0
    words = capsys.readouterr().out
    assert "a site's whole update" in words and "at delta 0.001" in words and "RDP of skellam" in words
    assert main(["site", "--config", "s1/federation.toml", "--check"]) == 1  # no server is there any more
    words = capsys.readouterr().out
    assert "privacy" in words and "spent in 1 uploads, 0 left" in words


def test_check_before_and_while_the_server_is_there(
    federation: int, schema: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["site", "--config", "s1/federation.toml", "--check", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert schema.check(found, schema.load("site-check")) == []
    assert [c["name"] for c in found["checks"] if not c["ok"]] == ["tls"]
    server = start("server", "--config", "server/federation.toml")
    try:
        deadline = time.monotonic() + 300
        while main(["site", "--config", "s1/federation.toml", "--check"]) != 0:
            assert time.monotonic() < deadline and server.poll() is None
            time.sleep(0.2)
        server.send_signal(signal.SIGTERM)
        server.wait(300)
        assert server.returncode == 130
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize(
    "words, text, code",
    [
        (["server", "--config", "gone.toml"], "does not exist", 2),
        (["server", "--config", "server/federation.toml", "--status"], "no server has run", 2),
        (["server", "--config", "server/federation.toml", "--new-certificate", "h"], "exists", 2),
        (["site", "--config", "server/federation.toml"], "has no [site]", 2),
    ],
)
def test_what_is_wrong_is_said(
    federation: int, capsys: pytest.CaptureFixture[str], words: list[str], text: str, code: int
) -> None:
    capsys.readouterr()
    assert main(words) == code
    assert text in capsys.readouterr().err
