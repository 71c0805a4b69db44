"""The answering rule of a run: people predict nobody's clips they trained on, one sum, kept in model.json."""

import json

import numpy as np
import pytest

from merveil.cli import main
from merveil.fl.answering import FOLDS, answering_rule
from merveil.fl.evaluate import federated_predictions
from merveil.fl.model import load_model
from merveil.fl.options import resolve
from merveil.mer.calibration import answering_from, calibration_sums
from merveil.mer.data.archive import save_archive
from merveil.mer.data.splits import kfold
from merveil.mer.errors import InputError

OPTIONS = {"model": "exact-ridge", "coverage": 0.5}


def test_the_rule_rests_on_predictions_of_unseen_people(people):
    found = answering_rule(people, resolve(OPTIONS))
    folds = kfold(people, FOLDS, 0)
    p = federated_predictions(people, folds, model="exact-ridge").probabilities
    wanted = answering_from(calibration_sums(p, people.y), 0.5)
    assert found.clips == people.n and found.threshold == pytest.approx(wanted.threshold, abs=0.006)
    assert found.temperature == pytest.approx(wanted.temperature, rel=0.2)
    assert answering_rule(people, resolve({"model": "exact-ridge"})) is None


def test_schemes_give_the_same_rule(people):
    rules = [answering_rule(people, resolve({**OPTIONS, "scheme": s})) for s in ("plain", "secagg")]
    assert rules[0] == rules[1]


@pytest.mark.parametrize("model", ["exact-ridge", "ststnet"])
def test_a_run_keeps_its_rule(people, tmp_path, model):
    names = ("x", "y", "dataset", "subject", "clip", "site")
    path = save_archive(tmp_path / "a.npz", **{name: getattr(people, name) for name in names})
    out = tmp_path / "run"
    words = ["train", "--data", str(path), "--model", model, "--coverage", "0.5", "--out", str(out), "-q"]
    words += ["--rounds", "2"] if model == "ststnet" else []
    assert main(words) == 0
    kept = json.loads((out / "model.json").read_text())["answering"]
    assert kept["coverage"] == 0.5 and kept["clips"] == people.n and kept["threshold"] > 1 / 3
    assert load_model(out).answering == kept
    assert main(["reproduce", str(out), "-q"]) == 0


def test_where_a_rule_has_no_place(people):
    with pytest.raises(InputError, match="noise"):
        options = {"dp": "central", "epsilon": 1.0, "delta": 1e-3, "norm_clip": 1.0, "coverage": 0.5}
        answering_rule(people, resolve(options))
    with pytest.raises(InputError, match="coverage"):
        federated_predictions(people, kfold(people, 2), options={"coverage": 0.5})
    assert np.isfinite(resolve(OPTIONS).coverage)
    assert resolve(OPTIONS).sha256 == resolve({"model": "exact-ridge"}).sha256
