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
from merveil.mer.features.opencv import opencv

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


SET = ("--layout", "casme2", "--flow", "dis", "--face", "full", "--jobs", "1")


def test_an_annotated_set_with_pictures(schema: Any, sets: Any, capsys: Any, tmp_path: Path) -> None:
    sets.make(tmp_path / "set", "casme2")
    words = (str(tmp_path / "set"), *SET, "--preview", str(tmp_path / "p"), "--cache", str(tmp_path / "c"))
    code, text, err = run(capsys, *words, "--out", str(tmp_path / "a.npz"), "--json")
    found = json.loads(text)
    assert code == 0 and schema.check(found, schema.load("prepare")) == []
    assert (found["clips"], found["apex"]) == (3, {"annotated": 2, "spotted": 1})
    assert "note: left out, by reason: 'others' is none of three classes: 1" in err
    assert load_archive(tmp_path / "a.npz").meta.apex == "annotated 2, spotted 1"
    pictures = sorted((tmp_path / "p").iterdir())
    assert len(pictures) == 3 and all(opencv().imread(str(p)).shape[0] > 900 for p in pictures)
    pictures[0].unlink()  # what exists is kept, what is missing is made
    code, text, _ = run(capsys, *words, "--out", str(tmp_path / "b.npz"), "--json")
    assert code == 0 and json.loads(text)["cached"] == 2 and len(list((tmp_path / "p").iterdir())) == 3
    assert load_archive(tmp_path / "a.npz").sha256 == load_archive(tmp_path / "b.npz").sha256
    code, text, _ = run(capsys, *words, "--classes", "native", "--out", str(tmp_path / "n.npz"), "--json")
    assert code == 0 and json.loads(text)["classes"]["others"] == 1 and json.loads(text)["clips"] == 4


def test_faults_of_an_annotated_set(schema: Any, sets: Any, capsys: Any, tmp_path: Path) -> None:
    table = sets.make(tmp_path / "set", "casme2")
    table.unlink()
    rows = [(*sets.ROWS["casme2"][0][:5], "joyful"), *sets.ROWS["casme2"][1:]]
    sets.write_table(tmp_path / "set", "casme2", rows)
    words = (str(tmp_path / "set"), *SET, "--out", str(tmp_path / "a.npz"))
    code, text, err = run(capsys, *words)
    assert (code, text) == (2, "") and "row 2: unknown emotion 'joyful'" in err and "--skip-bad" in err
    code, text, err = run(capsys, *words, "--skip-bad", "--json")
    found = json.loads(text)
    assert code == 0 and schema.check(found, schema.load("prepare")) == []
    assert found["clips"] == 2 and len(found["skipped"]) == 1 and "left out" in err


def test_archives_made_alike_become_one(schema: Any, sets: Any, capsys: Any, tmp_path: Path) -> None:
    for name in ("casme2", "samm"):
        sets.make(tmp_path / name, name)
        words = (str(tmp_path / name), "--layout", name, *SET[2:], "--out", str(tmp_path / f"{name}.npz"))
        assert run(capsys, *words)[0] == 0
    pair = [str(tmp_path / f"{name}.npz") for name in ("casme2", "samm")]
    both = tmp_path / "both.npz"
    code, text, _ = run(capsys, *pair, "--layout", "archives", "--out", str(both), "--json")
    found = json.loads(text)
    assert code == 0 and schema.check(found, schema.load("prepare")) == []
    made, parts = load_archive(both), [load_archive(path) for path in pair]
    assert (found["clips"], found["persons"], made.meta.apex) == (6, 4, "annotated 4, spotted 2")
    assert set(made.site) == {"casme2", "samm"} and (made.x == np.concatenate([p.x for p in parts])).all()
    code, _, err = run(capsys, pair[0], pair[0], "--layout", "archives", "--out", str(tmp_path / "c.npz"))
    assert code == 2 and "have the same (dataset, subject, clip)" in err
    code, _, err = run(capsys, pair[0], "--layout", "archives", "--out", str(tmp_path / "c.npz"))
    assert code == 2 and "name at least two" in err
    words = (
        str(tmp_path / "samm"),
        "--layout",
        "samm",
        *SET[2:],
        "--size",
        "20",
        "--force",
        "--out",
        pair[1],
    )
    assert run(capsys, *words)[0] == 0
    code, _, err = run(capsys, *pair, "--layout", "archives", "--out", str(tmp_path / "c.npz"))
    assert code == 2 and "differ in normalisation" in err and "prepare both alike" in err
    code, _, err = run(capsys, *pair, "--layout", "samm", "--out", str(tmp_path / "c.npz"))
    assert code == 2 and "only archives are pooled" in err
    code, _, err = run(
        capsys, *pair, "--layout", "archives", "--flow", "dis", "--out", str(tmp_path / "c.npz")
    )
    assert code == 2 and "--flow: archives hold finished features" in err


@pytest.mark.parametrize(
    "words, said",
    [
        (("--align", "nose"), "unknown alignment 'nose'"),
        (("--magnify", "99"), "--magnify must be 1 (none) to 20, not 99"),
        (("--classes", "3"), "--classes: for annotated sets alone (casme2, smic"),
    ],
)
def test_bad_words_of_the_new_options(capsys: Any, tmp_path: Path, words: Any, said: str) -> None:
    code, _, err = run(capsys, *SOURCE, *words, "--out", str(tmp_path / "a.npz"))
    assert code == 2 and said in err and list(tmp_path.iterdir()) == []


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


def test_frames_near_the_apex_are_made_checked_and_trained_on(
    schema: Any, capsys: Any, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    out = tmp_path / "a.npz"
    words = ["synthetic:subjects=6,clips=3", *SOURCE[1:], "--apex-jitter", "1", "--out", str(out), "--json"]
    code, text, _ = run(capsys, *words)
    found = json.loads(text)
    assert code == 0 and schema.check(found, schema.load("prepare")) == []
    assert found["near_apex"] == 2 and found["settings"]["apex_jitter"] == 1
    assert main(["check", str(out)]) == 0 and "near the apex: 2 images a clip" in capsys.readouterr().out
    assert main(["check", str(out), "--json"]) == 0
    checked = json.loads(capsys.readouterr().out)
    assert checked["near_apex"] == 2 and schema.check(checked, schema.load("check")) == []
    trained = []
    for share in ("0", "0.9"):
        folder = tmp_path / share
        words = ["--model", "flow-mlp", "--rounds", "1", "--apex-jitter", share, "--out", str(folder)]
        assert main(["train", "--data", str(out), *words]) == 0
        trained.append((folder / "model.safetensors").read_bytes())
    assert trained[0] != trained[1]
    code, _, err = run(
        capsys,
        str(tmp_path),
        "--layout",
        "flow-folder",
        "--apex-jitter",
        "1",
        "--out",
        str(tmp_path / "c.npz"),
    )
    assert code == 2 and "--apex-jitter: a flow-folder holds finished features" in err
