"""The scored result: pooled counts, slices of one run, marked folds, and predictions that read back."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from merveil.mer import evaluation
from merveil.mer.data.archive import make_archive
from merveil.mer.data.splits import kfold, loso
from merveil.mer.errors import InputError
from merveil.mer.evaluation import allowed, config_sha256, linked_persons, score, versions
from merveil.mer.metrics import confusion, uf1
from merveil.mer.predictions import read_predictions, write_predictions


def noisy(archive: Any, seed: int = 0) -> np.ndarray:
    p = np.eye(3)[archive.y] + np.random.default_rng(seed).gamma(0.5, 1.2, (archive.n, 3))
    return p / p.sum(axis=1, keepdims=True)


def test_scores_are_pooled_and_slices_are_of_the_same_run(toy_archive: Any) -> None:
    folds, p = loso(toy_archive), noisy(toy_archive)
    result = score(toy_archive, folds, p)
    predicted = p.argmax(axis=1)
    assert result["confusion"] == confusion(toy_archive.y, predicted, 3).tolist()
    assert sum(map(sum, result["confusion"])) == result["clips"] == 60
    assert result["uf1"] == pytest.approx(uf1(np.array(result["confusion"])))
    per_fold = np.mean([uf1(confusion(toy_archive.y[f.test], predicted[f.test], 3)) for f in folds])
    assert abs(result["uf1"] - per_fold) > 0.005  # the wrong average would show
    assert set(result["per_dataset"]) == {"alpha", "beta"}
    for name, part in result["per_dataset"].items():
        rows = toy_archive.dataset == name
        assert part["uf1"] == pytest.approx(uf1(confusion(toy_archive.y[rows], predicted[rows], 3)))
        assert (part["clips"], part["subjects"], part["undefined"]) == (30, 5, [])
    assert (result["subjects"], result["folds"]) == (10, 10)
    assert result["classes"] == ["negative", "positive", "surprise"]
    assert result["ci95"]["uf1"][0] < result["uf1"] < result["ci95"]["uf1"][1]
    assert set(result["baselines"]) == {"majority", "kernel_ridge"}
    assert result["baselines"]["majority"]["uar"] == pytest.approx(1 / 3)
    assert result["baselines"]["kernel_ridge"]["uf1"] > 0.75
    json.dumps(result, allow_nan=False)


def test_undefined_classes_of_a_slice_are_named(toy_data: Any) -> None:
    data = toy_data()
    beta = data["dataset"] == "beta"
    data["y"][beta & (data["y"] == 2)] = 1
    archive = make_archive(**data)
    result = score(archive, loso(archive), np.eye(3)[archive.y])
    assert result["per_dataset"]["beta"]["undefined"] == ["surprise"]
    assert result["per_dataset"]["beta"]["uf1"] == 1.0 and result["undefined"] == []


def test_a_class_that_was_not_trained_counts_as_errors_and_is_marked(toy_data: Any) -> None:
    data = toy_data()
    first = (data["dataset"] == "alpha") & (data["subject"] == "s1")
    data["y"][~first & (data["y"] == 2)] = 1
    archive = make_archive(**data)
    truth = np.eye(3)[archive.y]  # even an oracle may not name what its training part lacks
    result = score(archive, loso(archive), truth)
    lost = int((archive.y == 2).sum())
    assert lost >= 1 and result["confusion"][2] == [lost, 0, 0]
    assert result["incomplete_folds"] == {"alpha/s1": ["surprise"]}
    p = allowed(archive, loso(archive), noisy(archive))
    assert (p[first, 2] == 0).all() and np.allclose(p.sum(axis=1), 1)


def test_bad_folds_and_probabilities_are_refused(toy_archive: Any) -> None:
    folds, p = loso(toy_archive), noisy(toy_archive)
    with pytest.raises(InputError, match="0 test parts"):
        score(toy_archive, folds[:-1], p)
    with pytest.raises(InputError, match=r"shape \(60, 2\)"):
        score(toy_archive, folds, p[:, :2])
    for value in (np.nan, -0.5, 3.0):
        spoilt = p.copy()
        spoilt[7, 1] = value
        with pytest.raises(InputError, match="clip alpha/s2/c2 has the probabilities"):
            score(toy_archive, folds, spoilt)


def test_truth_is_read_once_a_run(toy_archive: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = evaluation.bootstrap_ci95
    monkeypatch.setattr(evaluation, "bootstrap_ci95", lambda *a, **k: calls.append(1) or real(*a, **k))
    score(toy_archive, loso(toy_archive), noisy(toy_archive))
    assert calls == [1]


def test_other_counts_than_megc2019_are_said(toy_data: Any, toy_archive: Any) -> None:
    assert score(toy_archive, loso(toy_archive), noisy(toy_archive))["notices"] == []
    data = toy_data()
    data["dataset"] = np.where(data["dataset"] == "beta", "CASME II", "SMIC-HS")
    notices = evaluation.count_notices(make_archive(**data))
    assert len(notices) == 2 and "CASME II has 12/9/9 clips a class and MEGC2019 88/32/25" in notices[0]


def test_linked_persons_and_hashes(toy_data: Any, toy_archive: Any) -> None:
    assert linked_persons(toy_archive) == {}
    data = toy_data()
    person = np.array([f"{d}/{s}" for d, s in zip(data["dataset"], data["subject"])], dtype="U20")
    person[person == "beta/s1"] = "alpha/s1"
    archive = make_archive(**data, person=person)
    assert linked_persons(archive) == {"beta/s1": "alpha/s1"}
    assert score(archive, loso(archive), noisy(archive))["subjects"] == 9
    assert (
        config_sha256({"a": 1, "b": 2}) == config_sha256({"b": 2, "a": 1}) != config_sha256({"a": 1, "b": 3})
    )
    assert {"python", "numpy", "merveil"} <= set(versions())


def test_predictions_read_back_exactly(toy_archive: Any, tmp_path: Path) -> None:
    folds, p = kfold(toy_archive, 3, 0), noisy(toy_archive)
    path = write_predictions(tmp_path / "p.csv", toy_archive, folds, p)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["dataset", "subject", "clip", "fold", "truth", "predicted", "p0", "p1", "p2"]
    back = read_predictions(path)
    assert np.array_equal(back.probabilities, p) and np.array_equal(back.truth, toy_archive.y)
    assert np.array_equal(back.predicted, p.argmax(axis=1)) and back.classes == 3
    assert back.keys[7] == ("alpha", "s2", "c2")
    for fold in folds:
        assert set(back.fold[fold.test]) == {fold.name}


HEAD = "dataset,subject,clip,fold,truth,predicted,p0,p1\n"
BAD_FILES = [
    ("", "the first line must be"),
    ("dataset,subject\n", "the first line must be"),
    (HEAD.replace("p1", "p2"), "the first line must be"),
    (HEAD, "holds no prediction"),
    (HEAD + "a,s,c,f,0,0,0.5\n", "line 2 has 7 cells"),
    (HEAD + "a,,c,f,0,0,0.5,0.5\n", "line 2 has an empty name"),
    (HEAD + "a,s,c,f,2,0,0.5,0.5\n", "label '2' is not one of 0..1"),
    (HEAD + "a,s,c,f,0,-1,0.5,0.5\n", "label '-1'"),
    (HEAD + "a,s,c,f,0,0,x,0.5\n", "no number"),
    (HEAD + "a,s,c,f,0,0,nan,0.5\n", "in 0..1 with sum 1"),
    (HEAD + "a,s,c,f,0,0,0.9,0.5\n", "in 0..1 with sum 1"),
    (HEAD + "a,s,c,f,0,0,0.2,0.8\n", "predicted is 0, but p1 is larger"),
    (HEAD + "a,s,c,f,0,0,1,0\na,s,c,f,0,0,1,0\n", "lines 2 and 3 are the same clip a/s/c"),
    (HEAD + "a,s,c,f,0,0,1,0\na,s,d,g,0,0,1,0\n", "line 3: subject a/s is tested in two folds"),
    (HEAD + 'a,s,"c,f,0,0,1,0\n', "not a CSV file"),
]


@pytest.mark.parametrize("text, fault", BAD_FILES)
def test_bad_prediction_files_are_named(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "p.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=fault.replace(".", r"\.")) as caught:
        read_predictions(path)
    assert "p.csv" in str(caught.value)


def test_a_binary_prediction_file_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a CSV file"):
        read_predictions(tmp_path / "p.csv")
    with pytest.raises(InputError, match="no such prediction file"):
        read_predictions(tmp_path / "absent.csv")
