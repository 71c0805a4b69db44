"""`merveil prepare`: its JSON, its exit codes, and that a failure leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from merveil.cli import main
from merveil.mer import prepare
from merveil.mer.data.archive import load_archive

SOURCE = ["synthetic:subjects=2,clips=3", "--layout", "synthetic", "--flow", "dis", "--workers", "1"]


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["prepare", *words])
    return code, *capsys.readouterr()


def test_an_archive_a_summary_and_no_rest(schema: Any, capsys: Any, tmp_path: Path) -> None:
    out = tmp_path / "new" / "a.npz"
    code, text, _ = run(capsys, *SOURCE, "--out", str(out), "--json")
    found = json.loads(text)
    assert code == 0 and schema.check(found, schema.load("prepare")) == []
    made = load_archive(out)
    assert (found["clips"], found["persons"], found["data_sha256"]) == (6, 2, made.sha256)
    assert made.meta.flow.startswith("dis(") and [p.name for p in out.parent.iterdir()] == ["a.npz"]


def test_an_existing_archive_is_kept_unless_forced(capsys: Any, tmp_path: Path) -> None:
    out = tmp_path / "a.npz"
    out.write_bytes(b"mine")
    code, text, err = run(capsys, *SOURCE, "--out", str(out))
    assert (code, text) == (2, "") and "exists" in err and "--force" in err and out.read_bytes() == b"mine"
    code, _, _ = run(capsys, *SOURCE, "--out", str(out), "--force")
    assert code == 0 and load_archive(out).n == 6


@pytest.mark.parametrize(
    "words, said",
    [
        (
            ["x", "--layout", "casme9"],
            "unknown layout 'casme9': choose one of synthetic, flow-folder, video-",
        ),
        (["synth", "--layout", "synthetic"], "the synthetic source is written synthetic[:subjects=24"),
        (["none", "--layout", "video-folder"], "none is not there"),
        (
            ["none", "--layout", "flow-folder", "--flow", "dis"],
            "--flow: a flow-folder holds finished features",
        ),
        ([*SOURCE, "--order", "u,v,strain"], "--order is for --layout flow-folder"),
        ([*SOURCE, "--rigid", "chin"], "unknown rigid-motion mode 'chin'"),
        ([*SOURCE, "--jobs", "0"], "--jobs must be at least 1"),
    ],
)
def test_bad_words_are_usage_errors(capsys: Any, tmp_path: Path, words: list[str], said: str) -> None:
    code, text, err = run(capsys, *words, "--out", str(tmp_path / "a.npz"))
    assert (code, text) == (2, "") and said in err
    assert list(tmp_path.iterdir()) == []


def test_out_must_be_an_npz_file(capsys: Any, tmp_path: Path) -> None:
    assert run(capsys, *SOURCE, "--out", str(tmp_path / "a.csv"))[0] == 2
    (tmp_path / "b.npz").mkdir()
    code, _, err = run(capsys, *SOURCE, "--out", str(tmp_path / "b.npz"), "--force")
    assert code == 2 and "is a folder" in err


def test_a_place_that_cannot_be_written_fails_before_the_work(
    capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr(prepare, "extract", lambda *a, **k: pytest.fail("worked first"))
    code, _, err = run(capsys, *SOURCE, "--out", str(tmp_path / "file" / "a.npz"))
    assert code == 1 and "file" in err
    if hasattr(os, "geteuid") and os.geteuid() != 0:  # the superuser may write anywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        code, _, err = run(capsys, *SOURCE, "--out", str(tmp_path / "locked" / "a.npz"))
        assert code == 1 and "locked" in err


def test_a_full_disk_leaves_no_archive(capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    code, _, err = run(capsys, *SOURCE, "--out", str(tmp_path / "a.npz"))
    assert code == 1 and "No space left on device" in err
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz.parts"]  # finished clips, for the next try
    monkeypatch.undo()
    code, text, _ = run(capsys, *SOURCE, "--out", str(tmp_path / "a.npz"), "--json")
    assert code == 0 and json.loads(text)["cached"] == 6
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_a_folder_of_videos_with_a_bad_one(capsys: Any, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "lab" / "s1" / "surprise"
    folder.mkdir(parents=True)
    (folder / "bad.mp4").write_bytes(b"")
    out = tmp_path / "a.npz"
    code, _, err = run(
        capsys, str(tmp_path / "data"), "--layout", "video-folder", "--out", str(out), "--workers", "1"
    )
    assert code == 2 and "lab/s1/bad" in err and "is empty" in err and not out.exists()


@pytest.mark.skipif(os.name != "posix", reason="sends a POSIX signal")
def test_an_interrupt_exits_130_and_the_same_command_goes_on(tmp_path: Path) -> None:
    words = ["synthetic:subjects=6,clips=4", "--layout", "synthetic", "--flow", "dis", "--workers", "2"]
    command = [sys.executable, "-m", "merveil", "prepare", *words, "--out", str(tmp_path / "a.npz"), "--json"]
    first = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    parts = tmp_path / "a.npz.parts"
    limit = time.monotonic() + 60
    while time.monotonic() < limit and len(list(parts.glob("*.npz")) if parts.is_dir() else []) < 3:
        time.sleep(0.05)
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=60)
    assert first.returncode == 130 and "repeat the same command" in err and "Traceback" not in err
    assert not (tmp_path / "a.npz").exists()
    kept = len(list(parts.glob("*.npz")))
    assert 3 <= kept < 24
    again = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 0 and json.loads(again.stdout)["cached"] == kept
    assert not parts.exists()
