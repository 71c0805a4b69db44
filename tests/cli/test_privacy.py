"""`merveil privacy`, and the privacy options of `merveil train`, through the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from merveil.cli import main


@pytest.mark.parametrize(
    "words",
    [
        ["--epsilon", "8"],
        ["--epsilon", "8", "--dp", "central"],
        ["--noise", "5", "--scheme", "secagg+", "--dp-noise", "gaussian"],
        ["--epsilon", "1", "--scheme", "plain", "--dim", "100"],
    ],
)
def test_the_json_matches_its_schema_and_the_target(
    words: list[str], capsys: pytest.CaptureFixture[str], schema: Any
) -> None:
    assert main(["privacy", "--delta", "1e-5", *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert schema.check(found, schema.load("privacy")) == []
    assert found["unit"] == "client" and "replaced by zero" in found["relation"]
    if words[0] == "--epsilon":
        assert 0.98 * float(words[1]) < found["epsilon"] <= float(words[1])
    ratios = [row["noise_to_clip"] for row in found["table"]]
    assert ratios == sorted(ratios, reverse=True) and found["table"][0]["subjects"] == 40


def test_the_text_names_the_unit_and_the_need(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["privacy", "--delta", "1e-5", "--epsilon", "8"]) == 0
    text = capsys.readouterr().out
    assert "protects one client" in text and "subjects" in text.splitlines()[-1]


def test_sgd_has_an_epsilon_for_noise_and_noise_for_an_epsilon(
    capsys: pytest.CaptureFixture[str], schema: Any
) -> None:
    pytest.importorskip("opacus")
    words = ["privacy", "--dp", "sgd", "--rate", "0.1", "--steps", "20", "--delta", "1e-5", "--json"]
    assert main([*words, "--noise", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert schema.check(found, schema.load("privacy")) == [] and found["unit"] == "clip"
    assert "PRV" in found["accountant"]
    target = str(found["epsilon"])
    assert main([*words, "--epsilon", target]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["epsilon"] <= float(target) and again["noise_multiplier"] == pytest.approx(2.0, rel=0.02)
    assert main([*words, "--noise", "2", "--accountant", "rdp"]) == 0
    assert json.loads(capsys.readouterr().out)["epsilon"] > found["epsilon"]


@pytest.mark.parametrize(
    "words, text",
    [
        ([], "either --epsilon"),
        (["--epsilon", "1", "--noise", "1"], "either --epsilon"),
        (["--epsilon", "-1"], "--epsilon must be positive"),
        (["--epsilon", "1", "--delta", "0.03"], "one over"),
        (["--epsilon", "1", "--scheme", "ckks"], "not with ckks"),
        (["--epsilon", "1", "--rate", "0.1"], "--dp sgd"),
        (["--dp", "sgd", "--noise", "1"], "--rate and --steps"),
        (["--epsilon", "1e-3", "--bits", "8"], "raise bits"),
    ],
)
def test_bad_input(words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["privacy", "--delta", "1e-5", *words]) == 2
    assert text in capsys.readouterr().err


def test_train_states_its_guarantee(tmp_path: Path, capsys: pytest.CaptureFixture[str], schema: Any) -> None:
    words = ["train", "--data", "synthetic:subjects=6,clips=1,seed=0", "--rounds", "1", "--out"]
    private = ["--dp", "distributed", "--epsilon", "8", "--delta", "1e-2", "--norm-clip", "1"]
    assert main([*words, str(tmp_path / "a"), *private, "--json", "-q"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert schema.check(found, schema.load("train")) == []
    assert found["privacy"]["epsilon"] <= 8 and "local model" in found["guarantee"]
    assert main(["reproduce", str(tmp_path / "a")]) == 2
    assert "cannot be repeated" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "b"), *private, "--dp", "sgd"]) == 2
    assert "--batch" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "c"), "--dp-ledger", "x"]) == 2
