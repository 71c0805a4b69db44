"""Exact federated learning: equal to central training for every scheme and division, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from merveil.cli import main
from merveil.fl.clients import parse_clients, partition
from merveil.fl.driver import Run
from merveil.fl.evaluate import federated_predictions
from merveil.fl.exact import ExactFederation
from merveil.fl.exact_model import LoadedExact
from merveil.fl.model import load_model
from merveil.fl.options import resolve
from merveil.mer.data.archive import Archive, save_archive
from merveil.mer.data.splits import kfold, loso
from merveil.mer.errors import InputError
from merveil.mer.exact_features import normalised
from merveil.mer.exact_loso import exact_ridge_predictions
from merveil.protocols.errors import Aborted
from merveil.protocols.registry import names


def run(archive: Archive, folds: Any, **options: Any) -> Any:
    return federated_predictions(archive, folds, model="exact-ridge", **options)


@pytest.mark.parametrize("clients", ["subject", "site", "site:3"])
def test_any_division_gives_central_training_bit_for_bit(people: Archive, clients: str) -> None:
    folds = loso(people)
    found = run(people, folds[:4], clients=clients)
    wanted = exact_ridge_predictions(people, folds[:4])
    rows = np.concatenate([fold.test for fold in folds[:4]])
    assert np.array_equal(found.probabilities[rows], wanted[rows])


@pytest.mark.parametrize("scheme", [name for name in names() if name != "plain"])
def test_every_scheme_gives_central_training_bit_for_bit(people: Archive, scheme: str) -> None:
    fold = kfold(people, 3)[:1]
    found = run(people, fold, scheme=scheme)
    assert np.array_equal(
        found.probabilities[fold[0].test], exact_ridge_predictions(people, fold)[fold[0].test]
    )
    assert found.info["guarantee"].startswith("the server gets sums") and found.info["rounds"] == 3
    assert [s["numbers"] for s in found.info["sums"]] == [2 * 785, 147 + 10_878 + 3, 231_534]


def test_whoever_fails_is_out_of_all_three_sums(people: Archive) -> None:
    options = resolve({"model": "exact-ridge", "drop_rate": 0.3, "seed": 3})
    federation = ExactFederation(people, options)
    clients = partition(people, parse_clients("subject"))
    trained = federation.train(Run("", clients))
    assert {s.survivors for s in trained.sums} == {trained.sums[0].survivors}
    assert trained.sums[0].survivors < len(clients)
    assert trained.model.basis.counts.sum() < people.n


def test_too_many_failures_abort(people: Archive) -> None:
    options = resolve({"model": "exact-ridge", "drop_rate": 0.8, "scheme": "secagg", "seed": 1})
    with pytest.raises(Aborted):
        ExactFederation(people, options).train(Run("", partition(people, parse_clients("subject"))))


@pytest.mark.parametrize(
    "options, word",
    [
        ({"rounds": 5}, "rounds"),
        ({"model_options": {"gamma": 1}}, "gamma"),
        ({"dp": "central", "epsilon": 1.0, "delta": 1e-5, "norm_clip": 1.0}, "privacy"),
    ],
)
def test_what_has_no_meaning_is_refused(people: Archive, options: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError, match=word):
        ExactFederation(people, resolve({"model": "exact-ridge", **options}))


def test_two_sites_are_too_few_for_a_secure_scheme(people: Archive) -> None:
    with pytest.raises(InputError, match="2 clients"):
        run(people, kfold(people, 2), scheme="secagg+", clients="site")


def test_a_run_is_written_reproduced_and_loaded(people: Archive, tmp_path: Path) -> None:
    path = save_archive(
        tmp_path / "a.npz",
        **{name: getattr(people, name) for name in ("x", "y", "dataset", "subject", "clip", "site")},
    )
    out = tmp_path / "run"
    words = [
        "train",
        "--data",
        str(path),
        "--model",
        "exact-ridge",
        "--scheme",
        "secagg",
        "--out",
        str(out),
        "-q",
    ]
    assert main(words) == 0
    assert main(["reproduce", str(out), "-q"]) == 0 and main([*words, "--resume"]) == 0
    model = load_model(out)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["name"] for line in lines] == ["movement", "moments", "gram"]
    trained = ExactFederation(people, resolve({"model": "exact-ridge"})).train(
        Run("", partition(people, parse_clients("site")))
    )
    sites = people.site.tolist()
    wanted = trained.model.probabilities(normalised(people.x), sites)
    assert np.array_equal(model.predict(people.x, sites), wanted) and model.sites == ("a", "b")
    unknown = trained.model.probabilities(normalised(people.x), ["c"] * people.n)
    assert np.array_equal(model.predict(people.x), unknown)
    with pytest.raises(InputError, match="shape"):
        model.predict(people.x[:, :14])
    head = json.loads((out / "model.json").read_text())
    assert head["settings"].pop("mirror") is True  # a run from before mirrors has no such setting
    (out / "model.json").write_text(json.dumps(head))
    older = load_model(out)
    assert isinstance(older, LoadedExact) and older.exact.basis.mirror is False
    assert not np.array_equal(older.predict(people.x, sites), wanted)
