"""`merveil train` and `merveil reproduce`: JSON by schema, settings in layers, bad input by exit code."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from merveil.cli import main
from merveil.fl.runs import read_manifest
from merveil.mer.data.archive import make_archive, save_archive

pytest.importorskip("torch")
pytest.importorskip("safetensors")

FAST = ["--rounds", "2", "--server-lr", "0.01", "--update-clip", "64"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six persons of four clips on two sites."""
    draw = np.random.default_rng(0)
    n = 24
    return save_archive(
        tmp_path_factory.mktemp("data") / "toy.npz",
        x=draw.integers(0, 256, (n, 28, 28, 3)).astype(np.uint8),
        y=np.arange(n) % 3,
        dataset=np.array(["a", "b"])[np.arange(n) // 12],
        subject=np.array([f"s{i // 4}" for i in range(n)]),
        clip=np.array([f"c{i:02d}" for i in range(n)]),
    )


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "a"
    assert main(["train", "--data", str(data), "--out", str(path), "-q", *FAST]) == 0
    return path


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_json_is_one_object_of_the_schema(
    data: Path, tmp_path: Path, schema: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--data", data, "--out", tmp_path / "a", "--clients", "site:3", "--json", *FAST]
    code, out, err = call(capsys, *words)
    value = json.loads(out)
    assert code == 0 and schema.check(value, schema.load("train")) == []
    assert value["clients"] == 3 and value["survivors"] == [3, 3] and "round 2/2" in err


def test_progress_as_json_lines(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--data", data, "--out", tmp_path / "a", "-v", "--log-format", "json", *FAST]
    code, out, err = call(capsys, *words)
    lines = [json.loads(line) for line in err.splitlines()[:-1]]
    assert code == 0 and out == "" and [x["round"] for x in lines if "round" in x] == [0, 1]
    assert all("loss" not in line for line in lines)


def test_a_file_of_options_is_read_and_the_command_line_wins(
    data: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = trained / "config.toml"
    code, out, _ = call(capsys, "train", "--config", config, "--out", tmp_path / "same", "--json")
    assert code == 0
    again = json.loads(out)
    assert again["model_sha256"] == read_manifest(trained)["model_sha256"]
    code, out, _ = call(
        capsys, "train", "--config", config, "--out", tmp_path / "other", "--seed", 5, "--json"
    )
    other = json.loads(out)
    assert (other["seed"], other["rounds"]) == (5, 2) and other["model_sha256"] != again["model_sha256"]


def test_reproduce_gives_the_same_bytes(
    trained: Path, schema: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(capsys, "reproduce", trained, "--json", "-q")
    value = json.loads(out)
    assert code == 0 and value["identical"] and schema.check(value, schema.load("reproduce")) == []


def test_reproduce_says_when_it_does_not(
    data: Path, tmp_path: Path, schema: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a"
    assert call(capsys, "train", "--data", data, "--out", path, *FAST)[0] == 0
    manifest = read_manifest(path)
    manifest["model_sha256"] = "0" * 64
    manifest["versions"]["torch"] = "1.0"
    (path / "manifest.json").write_text(json.dumps(manifest))
    code, out, _ = call(capsys, "reproduce", path, "--json", "-q")
    value = json.loads(out)
    assert code == 1 and not value["identical"] and value["versions_changed"] == ["torch"]
    assert schema.check(value, schema.load("reproduce")) == []


def test_reproduce_refuses_changed_options_and_other_data(
    data: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = np.random.default_rng(1)
    names = {"dataset": np.array(["a"] * 6), "subject": np.array(list("ppqqrr"))}
    archive = make_archive(
        x=draw.integers(0, 256, (6, 28, 28, 3)).astype(np.uint8),
        y=np.arange(6) % 3,
        clip=np.array(list("uvwxyz")),
        **names,
    )
    other = save_archive(tmp_path / "o.npz", x=archive.x, y=archive.y, clip=archive.clip, **names)
    code, _, err = call(capsys, "reproduce", trained, "--data", other)
    assert code == 2 and "its SHA-256 differs" in err
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("manifest.json", "config.toml"):
        (copy / name).write_text((trained / name).read_text().replace("seed = 0", "seed = 1"))
    code, _, err = call(capsys, "reproduce", copy)
    assert code == 2 and "was changed after the run" in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--scheme", "rot13"], "unknown scheme 'rot13'"),
        (["--clients", "everyone"], "use subject, site, or site:K"),
        (["--clients", "site:7"], "asks for more groups than the 6 persons"),
        (["--rounds", "0"], "rounds must lie between"),
        (["--strategy", "fedsgd"], "strategy 'fedsgd' is not known"),
        (["--model", "resnet"], "there is no model 'resnet'"),
        (["--norm", "batch"], "use norm=group"),
        (["--update-clip", "0.000001"], "raise clip"),
        (["--config", "none.toml"], "does not exist"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    out = tmp_path / "a"
    code, text, err = call(capsys, "train", "--data", data, "--out", out, *FAST, *words)
    assert code == 2 and text == "" and sentence in err.splitlines()[-1]
    assert not (out / "model.json").exists()


def test_secure_schemes_need_more_than_two_sites(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from merveil.protocols.registry import names

    for scheme in [name for name in names() if name != "plain"]:
        words = ["train", "--data", data, "--out", tmp_path / scheme, "--clients", "site"]
        code, _, err = call(capsys, *words, "--scheme", scheme, *FAST)
        assert code == 2 and "--clients site gives 2 clients" in err and "--scheme plain" in err


def test_missing_data_and_existing_folders(
    data: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, "train", "--out", tmp_path / "a")
    assert code == 2 and "--data is missing" in err
    code, _, err = call(capsys, "train", "--data", tmp_path / "none.npz", "--out", tmp_path / "a")
    assert code == 2 and "none.npz" in err and not (tmp_path / "a").exists()
    code, _, err = call(capsys, "train", "--data", data, "--out", trained, *FAST)
    assert code == 2 and "--resume goes on with it, --force starts it over" in err
    code, _, err = call(capsys, "train", "--resume", "--out", tmp_path / "none")
    assert code == 2 and "is not a run folder" in err


def test_an_unwritable_place_is_exit_code_1(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = call(capsys, "train", "--data", data, "--out", tmp_path / "file" / "a", *FAST)
    assert code == 1 and "Not a directory" in err


def test_a_protocol_abort_is_exit_code_3(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--data", data, "--out", tmp_path / "a", "--scheme", "secagg", "--drop-rate", "0.8"]
    code, _, err = call(capsys, *words, *FAST, "--rounds", "20")
    assert code == 3 and "BELOW_THRESHOLD" in err


def test_tensorboard_events_are_written(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    words = ["train", "--data", data, "--out", tmp_path / "a", "--tensorboard", *FAST]
    assert call(capsys, *words)[0] == 0
    assert len(list((tmp_path / "a" / "tensorboard").glob("events.*"))) == 1
