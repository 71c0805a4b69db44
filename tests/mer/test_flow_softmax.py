"""flow-softmax: its inputs by hand, blindness to mirrors and scale, and softmax regression as the truth."""

import numpy as np
import pytest
import torch

from merveil.fl.options import resolve
from merveil.mer.errors import InputError
from merveil.mer.models.registry import MODELS, recipe_for
from merveil.mer.models.stacked import StackedNet, build
from merveil.mer.train import _targets, predict_stack, train_stack


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, 28, 28, 3), dtype=np.uint8)


def by_hand(images: np.ndarray, side: int) -> np.ndarray:
    """Block means of the normalised clip and of its mirror image, averaged; then the columns that differ."""
    flow = images.astype(np.float64) - np.median(images, (1, 2), keepdims=True)
    flow = np.clip(flow / np.sqrt((flow**2).mean((1, 2), keepdims=True)), -4, 4)
    cell = 28 // side
    means = flow.reshape(-1, side, cell, side, cell, 3).mean((2, 4))
    both = (means + means[:, :, ::-1] * (1, 1, -1)) / 2
    return np.asarray(both / np.sqrt((both**2).sum((1, 2, 3), keepdims=True)))


@pytest.mark.parametrize("side", [4, 7])
def test_inputs_span_the_mirror_even_block_means_with_their_lengths(side: int, images: np.ndarray) -> None:
    net = build("flow-softmax", 3, 28, 28, 3, side=side)
    x = net.prepare(images)
    assert x.shape == (12, {4: 24, 7: 77}[side]) and x.dtype == np.float32
    assert np.allclose((x**2).mean(1), 1, atol=1e-5)
    wanted = by_hand(images, side).reshape(12, -1)
    # Equal inner products: the same numbers but for a rotation.
    assert np.allclose(x @ x.T / x.shape[1], wanted @ wanted.T, atol=1e-4)
    assert np.linalg.matrix_rank(net.prepare(np.random.default_rng(1).random((200, 28, 28, 3)))) == x.shape[1]


def test_a_mirror_image_is_the_same_clip_and_strength_and_offset_change_nothing(images: np.ndarray) -> None:
    net = build("flow-softmax", 3, 28, 28, 3)
    flow = images.astype(np.float32) - np.median(images, (1, 2), keepdims=True).astype(np.float32)
    x = net.prepare(flow)
    assert np.abs(net.prepare(flow[:, :, ::-1] * np.float32([1, 1, -1])) - x).max() < 1e-5
    assert np.abs(net.prepare(flow[:, :, ::-1].copy()) - x).max() > 0.1  # u was not negated
    assert np.abs(net.prepare(0.3 * flow + np.float32([1, -2, 3])) - x).max() < 1e-4
    still = net.prepare(np.full((1, 28, 28, 3), 9, np.uint8))
    assert np.array_equal(still, np.zeros_like(still))


def test_scores_and_gradients_are_those_of_softmax_regression(images: np.ndarray) -> None:
    net = build("flow-softmax", 3, 28, 28, 3)
    assert net.size == net.trainable == 75 == MODELS["flow-softmax"].parameters(3, 28, 28, 3)
    assert not net.init(0).any() and np.array_equal(net.init(0), net.init(7))
    params = np.random.default_rng(2).normal(size=(2, 75)).astype(np.float32)
    x, y = net.prepare(images), np.arange(12) % 3
    weight, bias = params[:, :72].reshape(2, 3, 24), params[:, 72:]
    wanted = np.einsum("mki,bi->mbk", weight, x) + bias[:, None]
    for given in (x, images.astype(np.float32)):
        found = net.logits(torch.from_numpy(params), torch.from_numpy(given), train=False).numpy()
        assert np.allclose(found, wanted, atol=1e-4)
    rows = np.tile(np.arange(12), (2, 1))
    targets = _targets(y, rows, np.ones((2, 3)), 0.0)
    got = net.gradients(torch.from_numpy(params), torch.from_numpy(x), rows, targets, None).value.numpy()
    p = np.exp(wanted) / np.exp(wanted).sum(-1, keepdims=True) - np.eye(3)[y]
    each = np.concatenate([np.einsum("mbk,bi->mki", p, x).reshape(2, -1), p.sum(1)], 1) / 12
    assert np.allclose(got, each, atol=1e-4)


def test_training_learns_and_the_seed_has_no_part_in_it() -> None:
    rng = np.random.default_rng(1)
    y = np.repeat(np.arange(3), 4)
    coarse = np.kron(rng.normal(size=(3, 4, 4, 3)), np.ones((1, 7, 7, 1)))[y]
    x = 128 + 30 * coarse + 10 * rng.normal(size=coarse.shape)
    net: StackedNet = build("flow-softmax", 3, 28, 28, 3)
    x = net.prepare(np.clip(x, 0, 255).astype(np.uint8))
    trained = [
        train_stack(net, net.init(s)[None], x, y, rows=np.arange(12)[None], steps=40, lr=1e-2, seeds=[s])
        for s in (0, 5)
    ]
    assert (predict_stack(net, trained[0], x)[0].argmax(1) == y).mean() > 0.9
    assert np.array_equal(trained[0], trained[1])


@pytest.mark.parametrize(
    "channels, height, options, told",
    [
        (2, 28, {}, "at least 4x4"),
        (3, 3, {}, "at least 4x4"),
        (3, 28, {"side": 1}, r"2\.\.14"),
        (3, 28, {"side": 15}, r"2\.\.14"),
        (3, 28, {"side": "wide"}, "whole number"),
        (3, 28, {"side": 4.5}, "whole number"),
        (3, 28, {"side": True}, "whole number"),
        (3, 28, {"hidden": 3}, "flow-softmax"),
    ],
)
def test_misuse_is_named(channels: int, height: int, options: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        build("flow-softmax", channels, height, 28, 3, **options)


def test_a_federation_with_noise_takes_the_recipe_made_for_it() -> None:
    kept = {"dp": "distributed", "epsilon": 8.0, "delta": 1e-3, "norm_clip": 1.0}
    for extra, name in (({}, "default"), (kept, "private")):
        found, recipe = resolve({"model": "flow-softmax", **extra}), recipe_for("flow-softmax", name)
        assert (found.rounds, found.server_lr, found.class_weights) == (
            recipe.epochs,
            recipe.lr,
            recipe.class_weights,
        )
    assert resolve({"model": "flow-softmax", **kept, "rounds": 7}).rounds == 7
    assert resolve({"model": "ststnet", **kept}).rounds == recipe_for("ststnet").epochs
