"""`merveil evaluate`: contracted fields, settings, whole files or none, and one look at the truth."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from merveil.cli import main
from merveil.mer.baselines import kernel_ridge_predictions
from merveil.mer.data.archive import load_archive, save_archive

FIELDS = {
    *("uf1", "uar", "accuracy", "confusion", "per_dataset", "ci95", "clips", "subjects", "folds", "classes"),
    *("clients", "rounds", "baselines", "seconds", "scheme", "model", "mode", "seed"),
    *("data_sha256", "config_sha256", "versions", "predictions"),
}


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "merveil", *words], capture_output=True, text=True)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Replace training by kernel ridge, to test the shell around it; what was asked of it is recorded."""
    asked: list[dict[str, Any]] = []

    def predict(archive: Any, folds: Any, **options: Any) -> Any:
        asked.append(options)
        info = {"clients": 10, "rounds": options.get("rounds") or 7, "guarantee": "none", "epochs": 1}
        return SimpleNamespace(probabilities=kernel_ridge_predictions(archive, folds), info=info)

    for module, name in (
        ("merveil.fl.evaluate", "federated_predictions"),
        ("merveil.mer.loso", "central_predictions"),
    ):
        monkeypatch.setattr(import_module(module), name, predict)
    return asked


@pytest.fixture
def evaluate(capsys: pytest.CaptureFixture[str], toy_file: Path) -> Callable[..., tuple[int, Any, str]]:
    """`evaluate(*words)` runs the verb with --json on the toy archive: exit code, object or None, stderr."""

    def call(*words: str, data: Path | None = toy_file) -> tuple[int, Any, str]:
        capsys.readouterr()
        code = main(["evaluate", "--json", *(["--data", str(data)] if data else []), *words])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else None, err

    return call


def pooled_uf1(path: str) -> float:
    """UF1 from a prediction file, counted here and now with nothing of ours."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    f1 = []
    for c in {row["truth"] for row in rows} | {row["predicted"] for row in rows}:
        tp = sum(row["truth"] == c == row["predicted"] for row in rows)
        f1.append(2 * tp / sum((row["truth"] == c) + (row["predicted"] == c) for row in rows))
    return sum(f1) / len(f1)


@pytest.mark.parametrize(
    "mode, extra",
    [
        ("federated", ["--scheme", "plain", "--clients", "subject", "--rounds", "3"]),
        ("federated", ["--scheme", "plain", "--clients", "site", "--rounds", "2"]),
        ("central", ["--epochs", "3"]),
    ],
    ids=["subjects", "sites", "central"],
)
def test_the_command_gives_the_contract(
    schema: Any, toy_file: Path, tmp_path: Path, mode: str, extra: list[str]
) -> None:
    out = tmp_path / "e"
    words = [
        "--data",
        str(toy_file),
        "--protocol",
        "kfold:3",
        "--mode",
        mode,
        "--model",
        "ststnet",
        "--seed",
        "0",
    ]
    done = command("evaluate", *words, *extra, "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert schema.check(result, schema.load("evaluate")) == []
    assert FIELDS - set(result) == set()
    assert result["uf1"] == pytest.approx(pooled_uf1(result["predictions"]), abs=1e-12)
    assert result == json.loads((out / "result.json").read_text())
    assert sorted(file.name for file in out.iterdir()) == ["config.toml", "predictions.csv", "result.json"]
    assert result["data_sha256"] == load_archive(toy_file).sha256
    assert (result["clips"], result["subjects"], result["folds"]) == (60, 10, 3)
    assert (result["rounds"] is None) is (mode == "central")
    for said in (
        "alpha (30)",
        "kfold:3",
        "10 persons",
        "seed 0",
        "flow unknown",
        "channels strain, v, u",
        "privacy: ",
    ):
        assert said in result["disclosure"]


@pytest.mark.parametrize("mode, extra", [("federated", ["--rounds", "2"]), ("central", ["--epochs", "2"])])
def test_a_seed_repeats_a_run_and_held_out_labels_change_nothing(
    evaluate: Any, toy_data: Any, tmp_path: Path, mode: str, extra: list[str]
) -> None:
    data = toy_data(persons=5)
    own = (data["dataset"] == "beta") & (data["subject"] == "s1")
    flipped = {**data, "y": np.where(own, (data["y"] + 1) % 3, data["y"])}
    rows = []
    for name, arrays in (("a", data), ("b", data), ("c", flipped)):
        file = save_archive(tmp_path / f"{name}.npz", **arrays)
        code, result, err = evaluate("--mode", mode, *extra, "--out", str(tmp_path / name), data=file)
        assert code == 0, err
        with open(result["predictions"], newline="") as opened:
            rows.append(list(csv.reader(opened)))
    assert rows[0] == rows[1]
    held_out = [[row[6:] for row in part if row[:2] == ["beta", "s1"]] for part in rows]
    assert len(held_out[0]) == own.sum() and held_out[0] == held_out[2]
    assert [row[6:] for row in rows[0]] != [row[6:] for row in rows[2]]  # the others did learn from them


def test_the_truth_is_looked_at_once_after_all_training(
    evaluate: Any, fast: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import merveil.mer.evaluation as evaluation

    trained_before = []
    real = evaluation.score

    def score(*words: Any, **options: Any) -> Any:
        trained_before.append(len(fast))
        return real(*words, **options)

    monkeypatch.setattr(evaluation, "score", score)
    assert evaluate("--protocol", "kfold:4")[0] == 0
    assert trained_before == [1]


def test_defaults_file_and_command_line_in_this_order(evaluate: Any, fast: Any, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text('mode = "federated"\nprotocol = "kfold:2"\nrounds = 9\nseed = 4\nlocal_epochs = 2\n')
    code, result, err = evaluate("--config", str(config), "--rounds", "5", "--set", "label_smoothing=0.25")
    assert code == 0, err
    assert (result["mode"], result["folds"], result["rounds"], result["seed"]) == ("federated", 2, 5, 4)
    assert result["scheme"] == "plain" and fast[0]["clients"] == "subject"
    assert fast[0]["options"] == {"local_epochs": 2, "label_smoothing": 0.25}
    code, result, _ = evaluate()
    assert (result["mode"], result["protocol"], result["folds"]) == ("central", "loso", 10)
    assert result["scheme"] is result["clients"] is result["rounds"] is None


def test_the_written_config_repeats_the_run(evaluate: Any, tmp_path: Path) -> None:
    words = [
        "--mode",
        "federated",
        "--protocol",
        "kfold:2",
        "--rounds",
        "2",
        "--seed",
        "3",
        "--set",
        "label_smoothing=0.25",
    ]
    _, first, err = evaluate(*words, "--out", str(tmp_path / "a"))
    assert first, err
    config = tmp_path / "a" / "config.toml"
    assert tomllib.loads(config.read_text())["label_smoothing"] == 0.25
    _, second, _ = evaluate("--config", str(config), "--out", str(tmp_path / "b"), data=None)
    assert second["config_sha256"] == first["config_sha256"] and second["uf1"] == first["uf1"]
    assert (tmp_path / "a/predictions.csv").read_bytes() == (tmp_path / "b/predictions.csv").read_bytes()
    _, third, _ = evaluate("--config", str(config), "--seed", "4")
    assert third["config_sha256"] != first["config_sha256"] and third["predictions"] is None


def test_people_get_a_table(fast: Any, toy_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--data", str(toy_file)]) == 0
    out, err = capsys.readouterr()
    for said in (
        "UF1",
        "of it alpha",
        "baseline majority",
        "baseline kernel_ridge",
        "95 % interval",
        "confusion",
        "privacy",
    ):
        assert said in out
    assert "no meta" not in err  # the file says what its channels are


def test_no_meta_is_said_on_stderr(evaluate: Any, fast: Any, toy_data: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **toy_data())
    code, result, err = evaluate(data=tmp_path / "a.npz")
    assert code == 0 and result and "no meta: taken as channels ['strain', 'v', 'u']" in err


def test_an_existing_folder_is_refused_without_force(evaluate: Any, fast: Any, tmp_path: Path) -> None:
    out = tmp_path / "e"
    assert evaluate("--out", str(out))[0] == 0
    before = (out / "result.json").read_bytes()
    (out / "note.txt").write_text("mine")
    code, result, err = evaluate("--out", str(out), "--seed", "5")
    assert (code, result) == (2, None) and "--force" in err and len(fast) == 1
    assert (out / "result.json").read_bytes() == before
    assert evaluate("--out", str(out), "--seed", "5", "--force")[0] == 0
    assert json.loads((out / "result.json").read_text())["seed"] == 5
    assert (out / "note.txt").read_text() == "mine"
    (tmp_path / "file").write_text("")
    for words in (["--out", str(tmp_path / "file")], ["--out", str(tmp_path / "file"), "--force"]):
        code, _, err = evaluate(*words)
        assert code == 2 and "is a file" in err


@pytest.mark.parametrize(
    "fault, code", [(KeyboardInterrupt, 130), (OSError(28, "No space left on device"), 1)]
)
@pytest.mark.parametrize("where", ["training", "writing"])
def test_a_failed_run_leaves_nothing(
    evaluate: Any,
    fast: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Any,
    code: int,
    where: str,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise fault

    if where == "training":
        monkeypatch.setattr("merveil.mer.loso.central_predictions", fail)
    else:
        monkeypatch.setattr(os, "fsync", fail)
    got, result, err = evaluate("--out", str(tmp_path / "deep" / "e"))
    assert (got, result) == (code, None) and err
    assert list((tmp_path / "deep").iterdir()) == []


def test_an_unwritable_place_fails_before_training(evaluate: Any, fast: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = evaluate("--out", str(tmp_path / "file" / "e"))
    assert code == 1 and "file" in err and fast == []


BAD_OPTIONS = [
    (["--protocol", "kfold:1"], "use loso, or kfold:K"),
    (["--protocol", "kfold:99"], "99 folds need 99 persons; the archive has 10"),
    (["--model", "nosuch"], "there is no model 'nosuch'; there are: "),
    (["--mode", "federated", "--scheme", "nosuch"], "there is no scheme 'nosuch'; there are: plain"),
    (["--mode", "federated", "--clients", "city"], "use subject, site, or site:K"),
    (["--mode", "federated", "--clients", "site:99"], "99"),
    (["--mode", "federated", "--rounds", "0"], "--rounds must be 1 or more"),
    (["--mode", "federated", "--epochs", "5"], "--epochs is for central mode"),
    (["--rounds", "5"], "--rounds is for federated mode"),
    (["--scheme", "secagg"], "central training aggregates nothing"),
    (["--epochs", "0"], "--epochs must be 1 or more"),
    (["--seed", "-1"], "seed"),
    (["--dp", "distributed"], "is for federated mode"),
    (["--norm", "nosuch"], "nosuch"),
    (["--recipe", "nosuch"], "no recipe 'nosuch'"),
    (["--set", "sede=3"], "option 'sede' is not known; did you mean 'seed'?"),
    (["--set", "nonsense"], "must be NAME=VALUE"),
    (["--set", "lr=-1"], "lr"),
    (["--set", "seed=1.5"], "option seed must be a whole number, not 1.5"),
    (["--config", "/nonexistent/c.toml"], "does not exist"),
]


@pytest.mark.parametrize("words, text", BAD_OPTIONS, ids=[" ".join(words) for words, _ in BAD_OPTIONS])
def test_bad_options_are_named(evaluate: Any, tmp_path: Path, words: list[str], text: str) -> None:
    code, result, err = evaluate(*words, "--out", str(tmp_path / "e"))
    assert (code, result) == (2, None), err
    assert text in err and err.startswith("merveil evaluate: ")
    assert list(tmp_path.iterdir()) == []


def test_bad_config_files_are_named(evaluate: Any, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    for text, fault in (
        ("seed = ", "not valid TOML"),
        ("rouns = 3", "did you mean 'rounds'"),
        ("seed = '1'", "whole"),
    ):
        config.write_text(text)
        code, _, err = evaluate("--config", str(config))
        assert code == 2 and fault in err


def put(key: str, row: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def spoil(data: dict[str, Any]) -> None:
        if data[key].dtype.kind == "U":
            data[key] = data[key].astype("U32")
        data[key][row] = value

    return spoil


def as_float(row: int, value: float) -> Callable[[dict[str, Any]], None]:
    def spoil(data: dict[str, Any]) -> None:
        data["x"] = data["x"].astype(np.float32)
        data["x"][row, 0, 0, 0] = value

    return spoil


BAD_ARCHIVES = [
    ("wrong shape", lambda d: d.update(x=d["x"][:, 0]), "x has shape (60, 28, 3)"),
    ("nan", as_float(3, np.nan), "clip alpha/s1/c4 (row 3) has NaN"),
    ("missing array", lambda d: d.pop("subject"), "missing array subject"),
    ("object array", lambda d: d.update(clip=d["clip"].astype(object)), "array clip holds Python objects"),
    ("label out of range", put("y", 5, 7), "label 7 of clip 5 is out of range"),
    ("one class", put("y", slice(None), 1), "all 60 clips have one class (positive)"),
    ("duplicate key", put("clip", 1, "c1"), "rows 0 and 1 have the same (dataset, subject, clip)"),
    (
        "person in train and test",
        lambda d: d.update(person=np.array([str(i) for i in range(60)])),
        "one person would be in train and test",
    ),
    ("content in train and test", lambda d: put("x", 30, d["x"][0])(d), "equal content under two subjects"),
    ("empty", lambda d: d.update({k: v[:0] for k, v in d.items()}), "empty"),
]


BAD_SPLITS = [
    (
        "one person",
        lambda d: d.update({k: v[:6] for k, v in d.items()}),
        "at least 2 persons; the archive has 1",
    ),
    (
        "one class left",
        lambda d: put("y", slice(6, None), 0)(d),
        "fold alpha/s1 would train on one class only",
    ),
]
CASES = [
    *((verb, *row) for verb in ("evaluate", "check") for row in BAD_ARCHIVES),
    *(("evaluate", *row) for row in BAD_SPLITS),
]


@pytest.mark.parametrize(
    "verb, spoil, text", [(c[0], *c[2:]) for c in CASES], ids=[f"{c[0]} {c[1]}" for c in CASES]
)
def test_bad_archives_are_named(
    toy_data: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, spoil: Any, text: str
) -> None:
    data = toy_data()
    spoil(data)
    np.savez(tmp_path / "bad.npz", **data)
    words = ["--data", str(tmp_path / "bad.npz"), "--out", str(tmp_path / "e")]
    code = main([verb, *words] if verb == "evaluate" else [verb, str(tmp_path / "bad.npz")])
    out, err = capsys.readouterr()
    assert code == 2 and out == "" and text in err
    assert [file.name for file in tmp_path.iterdir()] == ["bad.npz"]


def test_an_interrupt_ends_with_130_and_nothing_left(toy_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "place" / "e"
    words = ["evaluate", "--data", str(toy_file), "--epochs", "1000000", "--out", str(out), "--json"]
    with subprocess.Popen(
        [sys.executable, "-m", "merveil", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        for _ in range(600):
            if out.parent.is_dir() and any(out.parent.iterdir()):
                break
            time.sleep(0.1)
        time.sleep(2)
        run.send_signal(signal.SIGINT)
        stdout, stderr = run.communicate(timeout=60)
    assert run.returncode == 130, stderr
    assert stdout == "" and "interrupted" in stderr and "Traceback" not in stderr
    assert list(out.parent.iterdir()) == []


def test_an_interrupt_inside_a_librarys_exec_ends_with_130_too(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(
        "import sys\nimport merveil.cli as cli\nfrom merveil.cli import evaluate\n"
        "evaluate.run = lambda args: exec('raise KeyboardInterrupt')\n"
        "sys.exit(cli.main(['evaluate', '--data', 'x', '--out', 'y']))\n"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run = subprocess.run([sys.executable, "-m", "interrupted"], env=env, capture_output=True, text=True)
    assert run.returncode == 130 and "interrupted" in run.stderr, run.stderr


def test_drawn_clips_are_scored_and_called_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    source = "synthetic:subjects=6,clips=4,seed=0"
    assert main(["evaluate", "--data", source, "--model", "kernel-ridge", "--json"]) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert (found["clips"], found["subjects"], list(found["per_dataset"])) == (24, 6, ["synthetic"])
    assert any("drawn clips" in notice for notice in found["notices"]) and "drawn clips" in told.err
    assert main(["evaluate", "--data", "synthetic:people=6", "--model", "kernel-ridge"]) == 2
    assert "people" in capsys.readouterr().err
