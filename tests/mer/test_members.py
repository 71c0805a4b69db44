"""members: each trains as alone, their scores are averaged, in every way of training."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from merveil.cli import main
from merveil.fl.evaluate import federated_predictions
from merveil.fl.model import LoadedModel, load_model
from merveil.fl.update import Layout
from merveil.mer.coins import Coins
from merveil.mer.data.archive import Archive
from merveil.mer.data.splits import kfold
from merveil.mer.errors import InputError
from merveil.mer.loso import central_predictions
from merveil.mer.models.members import Members, member_seed
from merveil.mer.models.stacked import StackedNet, build
from merveil.mer.train import train_stack, with_prior

SETTINGS: dict[str, Any] = {"lr": 5e-3, "optimiser": "adamw", "weight_decay": 0.05, "schedule": "cosine"}


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 28, 28, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def three() -> StackedNet:
    return build("flow-mlp", 3, 28, 28, 3, members=3, augment=True, rotate=6.0)


def test_each_member_trains_as_alone_and_scores_are_their_mean(three: StackedNet, images: np.ndarray) -> None:
    one = build("flow-mlp", 3, 28, 28, 3, augment=True, rotate=6.0)
    y, x = np.arange(20) % 3, one.prepare(images)
    rows = np.array([list(range(20)), [*range(5, 20), *[-1] * 5]])
    start = np.stack([three.init(seed) for seed in (4, 5)])
    together = train_stack(three, start, x, y, rows=rows, steps=8, seeds=[4, 5], **SETTINGS)
    scores = []
    for k in range(3):
        seeds = [member_seed(seed, k) for seed in (4, 5)]
        assert len(set(seeds) & {4, 5}) == 0
        alone = train_stack(
            one, np.stack([one.init(s) for s in seeds]), x, y, rows=rows, steps=8, seeds=seeds, **SETTINGS
        )
        mine = together[:, k * one.size : (k + 1) * one.size]
        assert np.abs(mine - alone).max() < 1e-2 * np.abs(alone - one.init(seeds[0])).max()
        scores.append(one.logits(torch.from_numpy(alone), torch.from_numpy(x), train=False))
    found = three.logits(torch.from_numpy(together), torch.from_numpy(x), train=False)
    assert torch.allclose(found, torch.stack(scores).mean(0), atol=5e-3)
    assert not torch.allclose(scores[0], scores[1], atol=0.05)
    assert torch.equal(three.predict(torch.from_numpy(together), torch.from_numpy(x)), found.softmax(-1))


def test_every_form_of_input_gives_the_same_scores(three: StackedNet, images: np.ndarray) -> None:
    params = torch.from_numpy(np.stack([three.init(s) for s in range(2)]))
    ready, pictures = torch.from_numpy(three.prepare(images)), torch.from_numpy(images).float()
    wanted = three.logits(params, ready, train=False)
    for x in (ready.expand(2, -1, -1), pictures, pictures.expand(2, -1, -1, -1, -1)):
        assert torch.allclose(three.logits(params, x, train=False), wanted, atol=1e-4)
    coins = Coins([1, 2], [0, 0])
    assert three.logits(params, ready, train=True, generator=coins).shape == (2, 20, 3)


def test_a_prior_shifts_the_biases_of_all_members(three: StackedNet) -> None:
    params = three.init(0)[None]
    shares = np.array([[0.5, 0.3, 0.2]])
    moved = with_prior(three, params, shares, 2.0)
    parts, before = (three.views(torch.from_numpy(p)) for p in (moved, params))
    for name, value in parts.items():
        shift = 2 * np.log(shares) if name.endswith("last.bias") else 0.0
        assert np.abs((value - before[name]).numpy() - shift).max() < 1e-6
    assert np.abs(with_prior(three, moved, shares, -2.0) - params).max() < 1e-6


def test_federated_training_is_central_training(toy_archive: Archive) -> None:
    """A full-batch gradient a round: the server's steps are central ones, member by member."""
    folds, own = kfold(toy_archive, 2), {"members": 2}
    first = central_predictions(toy_archive, folds, model="flow-mlp", options={"epochs": 15, **own})
    plain, hidden = (
        federated_predictions(
            toy_archive, folds, model="flow-mlp", rounds=15, scheme=scheme, options={"model_options": own}
        )
        for scheme in ("plain", "secagg")
    )
    assert np.array_equal(plain.probabilities, hidden.probabilities)
    assert plain.info["parameters"] == 2 * 38_019 == first.info["parameters"]
    assert np.abs(plain.probabilities - first.probabilities).mean() < 0.1  # other coins, same steps


def test_the_vector_is_the_members_in_order(three: StackedNet) -> None:
    assert three.size == three.trainable == 3 * 38_019 and three.members == 3
    names = [name for name, _ in Layout.of(three.layout).entries]
    assert names[0] == "member0.first.weight" and names[-1] == "member2.last.bias"
    assert len({three.init(1)[k * 38_019] for k in range(3)}) == 3


def test_misuse_is_named(three: StackedNet, images: np.ndarray) -> None:
    for count in (0, 33):
        with pytest.raises(InputError, match="members"):
            build("flow-mlp", 3, 28, 28, 3, members=count)
    with pytest.raises(InputError, match="batch statistics"):
        Members(build("ststnet", 3, 28, 28, 3, norm="batch"), 2)
    with pytest.raises(InputError, match="sam"):
        train_stack(
            three, three.init(0)[None], three.prepare(images)[None], np.zeros((1, 20), int),
            steps=1, lr=0.1, seeds=[0], sam=0.05,
        )  # fmt: skip
    with pytest.raises(InputError, match="no option"):
        build("ststnet", 3, 28, 28, 3, members=2)


def test_a_run_of_members_is_written_and_loaded(toy_archive: Archive, toy_file: Path, tmp_path: Path) -> None:
    config, out = tmp_path / "c.toml", tmp_path / "run"
    config.write_text('model = "flow-mlp"\nrounds = 3\n[model_options]\nmembers = 2\nrotate = 6.0\n')
    assert main(["train", "--data", str(toy_file), "--config", str(config), "--out", str(out), "-q"]) == 0
    model = load_model(out)
    assert isinstance(model, LoadedModel) and model.net.members == 2 and len(model.params) == 2 * 38_019
    wanted = model.net.predict(
        torch.from_numpy(model.params)[None], torch.from_numpy(model.net.prepare(toy_archive.x))
    )
    assert np.allclose(model.predict(toy_archive.x), wanted[0].numpy(), atol=1e-6)
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    assert main(["export", "--run", str(out), "--format", "onnx", "--out", str(tmp_path / "m.onnx")]) == 0
