"""Honest federated predictions: who trains, who is predicted, when."""

import numpy as np
import pytest

from merveil.fl.evaluate import federated_predictions
from merveil.fl.selection import nested_choices
from merveil.mer.data.splits import Fold, kfold, loso
from merveil.mer.errors import InputError

pytest.importorskip("torch")
OPTIONS = {"server_lr": 0.02, "update_clip": 64.0}


def test_every_clip_is_predicted_once_by_a_model_that_never_saw_its_person(people, monkeypatch):
    import merveil.fl.driver as driver
    import merveil.mer.train as trainer

    seen, predicted = [], []
    updates, predict = driver.LocalTrainer.updates, trainer.predict_stack

    def spy(self, params, class_weight, round_, drift):
        seen.append({job.label: set() for job in self.jobs})
        for job in self.jobs:
            seen[-1][job.label] |= set(people.person[job.client.index])
        return updates(self, params, class_weight, round_, drift)

    def once(net, params, x, threads=None):
        predicted.append((len(seen), len(x)))
        return predict(net, params, x, threads)

    monkeypatch.setattr(driver.LocalTrainer, "updates", spy)
    monkeypatch.setattr(trainer, "predict_stack", once)
    folds = loso(people)
    done = []
    found = federated_predictions(
        people, folds, rounds=3, options=OPTIONS, progress=lambda at, of: done.append((at, of))
    )
    assert np.allclose(found.probabilities.sum(1), 1)
    assert done == [(1, 3), (2, 3), (3, 3)]
    for round_ in seen:
        assert all(fold not in persons and len(persons) == 8 for fold, persons in round_.items())
    # One prediction a fold, all after the last round, and together every clip.
    assert [rounds for rounds, _ in predicted] == [3] * len(folds)
    assert sum(clips for _, clips in predicted) == people.n


def test_predictions_repeat_and_depend_on_the_seed(people):
    folds = kfold(people, 3)
    runs = [
        federated_predictions(people, folds, rounds=2, seed=seed, options=OPTIONS).probabilities
        for seed in (0, 0, 1)
    ]
    assert np.array_equal(runs[0], runs[1]) and not np.array_equal(runs[0], runs[2])


@pytest.mark.parametrize("clients", ["subject", "site", "site:3"])
def test_what_the_result_file_is_told(people, clients):
    found = federated_predictions(people, kfold(people, 3), clients=clients, rounds=2, options=OPTIONS)
    info = found.info
    assert info["clients"] == {"subject": 9, "site": 2, "site:3": 3}[clients]
    assert info["rounds"] == 2 and info["parameters"] == 1683 and info["cut"] == 0
    assert info["uplink_bytes_per_client"] > 1683 * 2
    assert info["guarantee"].startswith("none")


def test_a_client_emptied_by_the_held_out_person_sits_out(people):
    found = federated_predictions(people, loso(people), rounds=1, options=OPTIONS)
    assert found.info["clients"] == 9 and found.info["clients_in_a_fold"] == [8, 8]


def test_a_person_on_both_sides_is_refused(people):
    fold = Fold("leaky", np.arange(people.n - 1), np.arange(people.n - 2, people.n))
    with pytest.raises(InputError, match="train and test"):
        federated_predictions(people, [fold], rounds=1, options=OPTIONS)


def test_a_signal_is_learnt_over_clients_of_few_clips(make):
    archive = make([[0, 1, 2, 0], [1, 2, 0], [2, 1], [0, 1], [0, 1, 2], [2, 1, 0], [0, 2, 1]])
    found = federated_predictions(archive, kfold(archive, 3), rounds=60, options=OPTIONS)
    assert (found.probabilities.argmax(1) == archive.y).mean() > 0.8


def test_choices_never_see_their_outer_group(people, monkeypatch):
    import merveil.fl.driver as driver

    labels = {}
    init = driver.Federation.__init__

    def spy(self, archive, runs, options, **more):
        for run in runs:
            rows = np.concatenate([client.index for client in run.clients])
            labels.setdefault(run.label.split("/")[0], set()).update(archive.person[rows])
        init(self, archive, runs, options, **more)

    monkeypatch.setattr(driver.Federation, "__init__", spy)
    candidates = {"slow": {**OPTIONS, "server_lr": 1e-4}, "fast": OPTIONS}
    choices = nested_choices(people, candidates, [1, 3], outer=3, inner=2)
    for at, group in enumerate(kfold(people, 3)):
        assert not labels[str(at)] & set(people.person[group.test])
    for choice in choices:
        best = max(value for marks in choice.scores.values() for value in marks.values())
        assert choice.scores[choice.candidate][choice.rounds] == best
        assert set(choice.scores) == set(candidates) and choice.rounds in (1, 3)
