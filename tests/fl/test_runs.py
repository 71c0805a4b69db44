"""The run folder: refusal, lock, clearing, checkpoints; nothing half-written."""

import errno
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from merveil.fl import checkpoint
from merveil.fl.checkpoint import Checkpoint
from merveil.fl.runs import opened, read_manifest, read_metrics
from merveil.mer.errors import InputError

HOLD = """
import sys, time
from pathlib import Path
from merveil.fl.runs import opened
with opened(Path(sys.argv[1])) as run:
    run.write_manifest({"status": "running"})
    print("held", flush=True)
    time.sleep(60)
"""


def started(path):
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "held\n"
    return child


def point(rounds, value=1.0):
    return Checkpoint(rounds, {"params": np.full(4, value)}, {"options": "o", "data": "d"})


def test_a_new_folder_is_made_and_an_existing_run_is_refused(tmp_path):
    path = tmp_path / "runs" / "a"
    with opened(path) as run:
        run.write_manifest({"status": "running"})
    assert read_manifest(path)["status"] == "running"
    with pytest.raises(InputError, match="--resume goes on with it, --force starts it over"), opened(path):
        pass
    with opened(path, resume=True) as run:
        assert run.manifest()["format"] == 1


def test_an_empty_folder_will_do(tmp_path):
    (tmp_path / "a").mkdir()
    with opened(tmp_path / "a") as run:
        run.write_config("x = 1\n")


@pytest.mark.parametrize("how", [{"resume": True}, {"resume": True, "force": True}])
def test_resume_needs_a_run(tmp_path, how):
    with pytest.raises(InputError), opened(tmp_path / "none", **how):
        pass
    assert not (tmp_path / "none").exists()


def test_a_file_is_not_a_folder(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(InputError, match="is a file"), opened(tmp_path / "a"):
        pass


def test_force_clears_a_runs_files_and_nothing_else(tmp_path):
    with opened(tmp_path / "a") as run:
        run.write_manifest({})
        run.add_metrics({"round": 0})
        checkpoint.save(run.checkpoints, point(1))
    (tmp_path / "a" / "notes.md").write_text("mine")
    with opened(tmp_path / "a", force=True):
        pass
    assert sorted(entry.name for entry in (tmp_path / "a").iterdir()) == ["lock", "notes.md"]


def test_force_refuses_a_folder_that_is_no_run(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="holds files but no run"), opened(tmp_path, force=True):
        pass
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_a_second_process_is_refused_and_a_dead_ones_lock_is_free(tmp_path):
    child = started(tmp_path / "a")
    try:
        refused = pytest.raises(InputError, match=f"process {child.pid} is working in")
        with refused, opened(tmp_path / "a", resume=True):
            pass
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert (tmp_path / "a" / "lock").read_text().strip() == str(child.pid)
    with opened(tmp_path / "a", resume=True) as run:
        assert run.manifest()["status"] == "running"
        assert (tmp_path / "a" / "lock").read_text().strip() == str(os.getpid())


def test_an_unwritable_folder_is_an_os_error(tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(PermissionError), opened(tmp_path / "a"):
        pass


def test_left_over_temporary_files_are_removed(tmp_path):
    with opened(tmp_path / "a") as run:
        run.write_manifest({})
    (tmp_path / "a" / ".model.json.1234.part").write_text("{")
    with opened(tmp_path / "a", resume=True):
        pass
    assert not list((tmp_path / "a").glob(".*"))


def test_metrics_are_cut_back_and_a_torn_line_is_dropped(tmp_path):
    with opened(tmp_path / "a") as run:
        for round_ in range(4):
            run.add_metrics({"round": round_})
        with (run.path / "metrics.jsonl").open("a") as out:
            out.write('{"round": 4, "surv')
        assert [line["round"] for line in read_metrics(run.path)] == [0, 1, 2, 3]
        run.keep_metrics(2)
        run.add_metrics({"round": 2})
        assert [line["round"] for line in read_metrics(run.path)] == [0, 1, 2]


def test_the_newest_two_checkpoints_stay(tmp_path):
    for rounds in (1, 2, 3):
        checkpoint.save(tmp_path, point(rounds, rounds))
    found, passed = checkpoint.newest(tmp_path, {"options": "o"})
    assert found.rounds == 3 and found.tensors["params"].tolist() == [3.0] * 4 and passed == []
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("damage", ["flip", "truncate", "missing", "head"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, damage):
    checkpoint.save(tmp_path, point(1))
    head = checkpoint.save(tmp_path, point(2))
    tensors = head.with_suffix(".safetensors")
    data = tensors.read_bytes()
    if damage == "flip":
        tensors.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "truncate":
        tensors.write_bytes(data[:-3])
    elif damage == "missing":
        tensors.unlink()
    else:
        head.write_text('{"format": 1, ')
    found, passed = checkpoint.newest(tmp_path, {})
    assert found.rounds == 1 and len(passed) == 1


def test_no_checkpoint_is_none(tmp_path):
    assert checkpoint.newest(tmp_path / "none", {}) == (None, [])


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    checkpoint.save(tmp_path, point(1))
    with pytest.raises(InputError, match="another data"):
        checkpoint.newest(tmp_path, {"options": "o", "data": "other"})


@pytest.mark.parametrize("at", [1, 2])
def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path, monkeypatch, at):
    checkpoint.save(tmp_path, point(1))
    calls = []

    def full(handle):
        calls.append(handle)
        if len(calls) == at:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(tmp_path, point(2))
    found, passed = checkpoint.newest(tmp_path, {})
    assert found.rounds == 1 and passed == []
    assert not list(tmp_path.glob(".*"))


def test_manifest_of_another_format_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"format": 9}))
    with pytest.raises(InputError, match="format 9"):
        read_manifest(tmp_path)
