"""Whole runs: what a folder holds, bit-identical resume after kills, and errors that leave nothing half."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from merveil.fl import checkpoint
from merveil.fl.model import load_model
from merveil.fl.options import read_config, resolve
from merveil.fl.runs import RunLog, read_manifest, read_metrics
from merveil.fl.train import Target, retrained_sha256, stored_options, train
from merveil.mer.data.archive import save_archive
from merveil.mer.errors import InputError

pytest.importorskip("torch")
pytest.importorskip("safetensors")

BASE = {"server_lr": 0.01, "update_clip": 64.0, "checkpoint_every": 3}


class Stop(RunLog):
    """A log that presses Ctrl-C, or breaks otherwise, when round `at` has been said."""

    def __init__(self, at, error=KeyboardInterrupt):
        super().__init__(verbosity=-1)
        self.at, self.error = at, error

    def _write(self, level, event):
        super()._write(level, event)
        if event.get("round") == self.at - 1:
            raise self.error


def go(archive, path, log=None, *, resume=False, force=False, **options):
    chosen = resolve(BASE, {"rounds": 8}, options)
    return train(archive, "toy", chosen, Target(path, resume, force), log or RunLog(verbosity=-1))


@pytest.fixture(scope="module")
def whole(people, tmp_path_factory):
    """An uninterrupted run of eight rounds."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    return path, go(people, path)


def model(path):
    return (path / "model.safetensors").read_bytes()


def test_a_finished_folder_holds_what_the_contract_lists(whole, people):
    path, result = whole
    found = sorted(entry.name for entry in path.iterdir())
    assert found == [
        "checkpoints",
        "config.toml",
        "lock",
        "log.txt",
        "manifest.json",
        "metrics.jsonl",
        "model.json",
        "model.safetensors",
    ]
    manifest = read_manifest(path)
    assert manifest["status"] == "finished" and manifest["data"]["sha256"] == people.sha256
    assert manifest["model_sha256"] == result["model_sha256"]
    assert manifest["versions"]["torch"] and manifest["guarantee"].startswith("none")
    source, values = stored_options(path)
    assert source == "toy" and resolve(values).sha256 == manifest["config_sha256"]
    assert read_config(path / "config.toml")["rounds"] == 8
    assert not list(path.rglob("*.pkl")) and not list(path.rglob("*.part"))


def test_what_is_said_about_a_round_is_what_the_server_knows(whole):
    """No loss, accuracy, label or single count is in metrics or log: they do not cross."""
    lines = read_metrics(whole[0])
    assert [line["round"] for line in lines] == list(range(8))
    known = {"round", "clients", "survivors", "uplink_bytes", "cut", "norm", "seconds"}
    assert all(set(line) == known for line in lines)
    assert "loss" not in (whole[0] / "log.txt").read_text()


@pytest.mark.parametrize("at", [1, 3, 5, 7])
def test_interrupt_and_resume_end_in_the_same_bytes(whole, people, tmp_path, at):
    path = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        go(people, path, Stop(at))
    assert not (path / "model.json").exists() and read_manifest(path)["status"] == "running"
    assert "go on with: merveil train --resume --out" in (path / "log.txt").read_text()
    kept, _ = checkpoint.newest(path / "checkpoints", {})
    assert kept.rounds == at
    go(people, path, resume=True)
    assert model(path) == model(whole[0])
    assert [line["round"] for line in read_metrics(path)] == list(range(8))


def test_resume_from_an_older_checkpoint_when_the_newest_is_damaged(whole, people, tmp_path):
    path = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        go(people, path, Stop(7))
    newest = sorted((path / "checkpoints").glob("*.safetensors"))[-1]
    newest.write_bytes(newest.read_bytes()[:100])
    go(people, path, resume=True)
    assert model(path) == model(whole[0])
    assert "passed over a damaged checkpoint" in (path / "log.txt").read_text()


def test_dropouts_and_other_strategies_resume_too(people, tmp_path):
    options = {"strategy": "fedadam", "drop_rate": 0.3, "local_epochs": 2, "lr": 0.01, "batch": 2}
    go(people, tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        go(people, tmp_path / "cut", Stop(4), **options)
    go(people, tmp_path / "cut", resume=True, **options)
    assert model(tmp_path / "cut") == model(tmp_path / "whole")


def test_a_finished_run_is_not_run_again(whole, people):
    before = model(whole[0])
    assert go(people, whole[0], resume=True)["model_sha256"] == whole[1]["model_sha256"]
    assert model(whole[0]) == before and len(read_metrics(whole[0])) == 8


def test_resume_with_other_options_or_data_is_refused(whole, people, make):
    with pytest.raises(InputError, match="trained with another server_lr, seed"):
        go(people, whole[0], resume=True, seed=3, server_lr=0.5)
    with pytest.raises(InputError, match="other data"):
        go(make([[0, 1, 2]] * 5), whole[0], resume=True)


def test_force_starts_over(people, tmp_path):
    go(people, tmp_path / "a", rounds=2)
    go(people, tmp_path / "a", rounds=3, force=True)
    assert len(read_metrics(tmp_path / "a")) == 3


def test_reproduction_needs_no_folder_and_gives_the_same_hash(whole, people):
    options = resolve(BASE, {"rounds": 8})
    assert retrained_sha256(people, options, RunLog(verbosity=-1)) == whole[1]["model_sha256"]


def test_a_full_disk_stops_the_run_and_keeps_the_last_checkpoint(whole, people, tmp_path, monkeypatch):
    sync, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) > 6:  # the second checkpoint
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    path = tmp_path / "a"
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        go(people, path)
    monkeypatch.setattr("os.fsync", sync)
    assert checkpoint.newest(path / "checkpoints", {})[0].rounds == 3
    assert not list(path.rglob("*.part")) and not (path / "model.json").exists()
    go(people, path, resume=True)
    assert model(path) == model(whole[0])


def test_the_loaded_model_predicts_and_refuses_other_shapes(whole, people):
    loaded = load_model(whole[0])
    found = loaded.predict(people.x[:5])
    assert found.shape == (5, 3) and np.allclose(found.sum(1), 1) and loaded.classes == people.classes
    with pytest.raises(InputError, match="reads clips of shape"):
        loaded.predict(people.x[:, :14])


def test_a_damaged_or_missing_model_is_refused(whole, tmp_path):
    for name in ("model.json", "model.safetensors"):
        (tmp_path / name).write_bytes((whole[0] / name).read_bytes())
    data = model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(data[:-1] + b"\x00")
    with pytest.raises(InputError, match="damaged"):
        load_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match="is missing"):
        load_model(tmp_path)
    with pytest.raises(InputError, match="no finished model"):
        load_model(tmp_path / "none")


def start(archive, out, *more):
    words = ["train", "--data", archive, "--out", out, "--rounds", 40, "--server-lr", 0.01, "-v", *more]
    words += ["--update-clip", 64, "--checkpoint-every", 5, "--log-format", "json", "--json"]
    return subprocess.Popen(
        [sys.executable, "-m", "merveil", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=out.parent,
    )


def wait_for_round(path: Path, rounds: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if path.is_dir() and len(read_metrics(path)) >= rounds:
            return
        time.sleep(0.002)
    raise AssertionError(f"round {rounds} did not come")


@pytest.fixture(scope="module")
def unbroken(people, tmp_path_factory):
    """The archive's path, and the folder of a whole run of it by the command."""
    folder = tmp_path_factory.mktemp("command")
    names = {key: getattr(people, key) for key in ("x", "y", "dataset", "subject", "clip")}
    archive = save_archive(folder / "toy.npz", **names)
    result = json.loads(start(archive, folder / "whole").communicate(timeout=120)[0])
    assert result["rounds"] == 40
    return archive, folder / "whole"


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_killed_process_resumes_to_the_same_bytes(unbroken, tmp_path, kill):
    archive, whole = unbroken
    cut = tmp_path / "cut"
    child = start(archive, cut)
    wait_for_round(cut, 7)
    child.send_signal(kill)
    out, err = child.communicate(timeout=60)
    assert out == ""
    if kill != signal.SIGKILL:
        assert child.returncode == 130 and "merveil train --resume --out" in err
    assert read_manifest(cut)["status"] == "running", "it had ended before the signal came"
    result = json.loads(start(archive, cut, "--resume").communicate(timeout=120)[0])
    assert result["rounds"] == 40
    assert model(cut) == model(whole)
