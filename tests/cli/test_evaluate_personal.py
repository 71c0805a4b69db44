"""`merveil evaluate --personal K`: beside the score, never in it; what is printed says for whom it holds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from merveil.cli import main
from merveil.mer.data.archive import load_archive, save_archive
from merveil.mer.data.splits import parse_protocol
from merveil.mer.data.synthetic import synthetic_archive
from merveil.mer.personal import personalised, summary


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six people with five clips each, but for one with two."""
    a = synthetic_archive(6, 5, 1)
    first = np.flatnonzero(a.person == a.persons()[0])
    a = a.select(np.setdiff1d(np.arange(a.n), first[2:]))
    path = tmp_path_factory.mktemp("personal") / "faces.npz"
    return save_archive(
        path, x=a.x, y=a.y, dataset=a.dataset, subject=a.subject, clip=a.clip, site=a.site, meta=a.meta
    )


def evaluate(capsys: pytest.CaptureFixture[str], data: Path, *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["evaluate", "--data", str(data), *words])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_score_is_the_same_and_the_figures_stand_apart(
    data: Path, capsys: pytest.CaptureFixture[str], schema: Any
) -> None:
    words = ["--model", "exact-ridge", "--json"]
    alone = json.loads(evaluate(capsys, data, *words)[1])
    both = json.loads(evaluate(capsys, data, *words, "--personal", "3")[1])
    assert not schema.check(both, schema.load("evaluate")) and not schema.check(
        alone, schema.load("evaluate")
    )
    assert alone["personal"] is None
    assert both["uf1"] == alone["uf1"] and both["confusion"] == alone["confusion"]
    assert both["config_sha256"] != alone["config_sha256"] and both["config"]["personal"] == 3
    archive = load_archive(data)
    wanted = summary(archive, personalised(archive, parse_protocol("loso").folds(archive, 0), 3))
    assert both["personal"] == wanted
    assert wanted["left_out"] == {archive.persons()[0]: 2} and wanted["people"] == 5 and wanted["clips"] == 25


def test_what_is_printed_says_that_it_is_no_loso_score_and_for_whom(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = evaluate(capsys, data, "--model", "exact-ridge", "--personal", "3")
    last = out.strip().splitlines()[-3:]
    assert code == 0 and last[0].startswith("personalised with 3 own labelled clips: UF1 ")
    assert "25 clips of the 5 people with 4 clips or more; 1 with fewer are not in it: " in last[1]
    assert "this is not a LOSO score" in last[2] and "returning users who label 3 clips" in last[2]
    assert "personalised" not in evaluate(capsys, data, "--model", "exact-ridge")[1]


@pytest.mark.parametrize("mode", ["central", "federated"])
def test_networks_of_either_mode(
    mode: str, data: Path, capsys: pytest.CaptureFixture[str], schema: Any
) -> None:
    pytest.importorskip("torch")
    length = ["--epochs", "4"] if mode == "central" else ["--rounds", "2", "--scheme", "secagg"]
    words = ["--mode", mode, "--model", "flow-mlp", *length, "--json"]
    result = json.loads(evaluate(capsys, data, *words, "--personal", "2")[1])
    assert not schema.check(result, schema.load("evaluate"))
    figures = result["personal"]
    assert figures["k"] == 2 and figures["clips"] == 25 and "Ditto" in figures["method"]
    assert figures["before"] != figures["after"]


@pytest.mark.parametrize(
    "words, said",
    [
        (("--model", "ensemble"), "for networks and exact-ridge, not for ensemble"),
        (("--model", "kernel-ridge"), "not for kernel-ridge"),
        (("--model", "exact-ridge", "--mode", "federated", "--set", "drop_rate=0.2"), "leave drop_rate out"),
    ],
)
def test_models_without_a_head_of_their_own_are_refused(
    words: tuple[str, ...], said: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = evaluate(capsys, data, *words, "--personal", "2")
    assert code == 2 and said in err


def test_too_many_own_clips_or_none_are_refused(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = evaluate(capsys, data, "--model", "exact-ridge", "--personal", "0")
    assert code == 2 and "1 own clip or more" in err
    code, _, err = evaluate(capsys, data, "--model", "exact-ridge", "--personal", "9")
    assert code == 2 and "nobody has the 10 clips" in err
