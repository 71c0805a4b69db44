"""`merveil attack`: the list, one attack with its control, and bad names."""

import json
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("torch")

from merveil.cli import main


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attack", "--list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["attacks"]
    assert {"A17", "A24", "A25", "A26"} <= {a["id"] for a in found}
    assert main(["attack", "--list"]) == 0
    assert "curious server" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "scheme", "verdict", "claim"),
    [("A17", "plain", "protected", "C-03"), ("A20", "plain", "broken", None)],
)
def test_one_attack(
    capsys: pytest.CaptureFixture[str], schema: Any, name: str, scheme: str, verdict: str, claim: str | None
) -> None:
    pytest.importorskip("cv2")
    source = "synthetic:subjects=10,clips=4"
    assert main(["attack", name.lower(), "--scheme", scheme, "--data", source, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert schema.check(found, schema.load("attack")) == []
    assert (found["verdict"], found["claim"], found["lost"]) == (verdict, claim, False)


def test_a_curve_over_cohorts(
    capsys: pytest.CaptureFixture[str], schema: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cv2")
    from merveil.attacks import runner

    monkeypatch.setattr(runner, "COHORTS", (2, 5, 60))
    monkeypatch.setitem(
        runner.SETTINGS, "wide-sum", replace(runner.SETTINGS["wide-sum"], rounds=3, options=(("hidden", 8),))
    )
    words = ["attack", "A25-span", "--curve", "--json", "--data", "synthetic:subjects=10,clips=4"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert schema.check(found, schema.load("attack")) == []
    assert [p["cohort"] for p in found["curve"]] == [2, 5]
    assert found["curve"][0]["ci95"][0] <= found["curve"][0]["score"] <= found["curve"][0]["ci95"][1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["A24", "--curve"], "--curve is for"),
        (["A99"], "no attack 'A99'"),
        ([], "name an attack"),
        (["A24", "--scheme", "rot13"], "no scheme"),
        (["A24", "--model", "nope"], "no model"),
    ],
)
def test_bad_names(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert main(["attack", *words]) == 2
    assert said in capsys.readouterr().err
