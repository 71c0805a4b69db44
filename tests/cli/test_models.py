"""`merveil models`: every entry once, its schema, and scores that are the shipped file's."""

import json
from typing import Any

import pytest

from merveil.cli import USAGE, main
from merveil.cli.models import shipped_scores
from merveil.mer.models.registry import MODELS


def test_json_holds_every_model_and_its_schema(capsys: pytest.CaptureFixture[str], schema: Any) -> None:
    assert main(["models", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert schema.check(found, schema.load("models")) == []
    assert [model["name"] for model in found["models"]] == list(MODELS)
    sizes = {model["name"]: model["parameters"] for model in found["models"]}
    assert sizes["ststnet"] == 1683 and sizes["rcn"] == 15_331 and sizes["dual-inception"] == 6_449_867
    assert sum(len(model["scores"]) for model in found["models"]) == len(shipped_scores()["rows"])


def test_shipped_scores_are_means_of_their_seeds() -> None:
    scores: dict[str, Any] = shipped_scores()
    assert scores["rows"] and {row["model"] for row in scores["rows"]} <= set(MODELS)
    for row in scores["rows"]:
        assert len(row["uf1"]) == len(row["seeds"]) == len(set(row["seeds"]))
        assert row["mean_uf1"] == pytest.approx(sum(row["uf1"]) / len(row["uf1"]))
        low, high = row["ci95"]["uf1"]
        assert low <= row["mean_uf1"] <= high and 0 < row["mean_uf1"] < 0.86  # above: a leak alarm


def test_people_get_a_table_and_one_model_s_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1 : len(MODELS) + 1]] == list(MODELS)
    assert main(["models", "rcn"]) == 0
    told = capsys.readouterr().out
    assert "recipe batch-norm" in told and "15,331" in told
    assert main(["models", "nothing"]) == USAGE
    assert "there is no model 'nothing'" in capsys.readouterr().err
