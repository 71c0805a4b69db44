"""flow-mlp: its normalisation, its mirror, and the stack against plain torch modules."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from merveil.mer import coins
from merveil.mer.errors import InputError
from merveil.mer.models.stacked import StackedNet, build
from merveil.mer.train import _targets, train_stack


@pytest.fixture(scope="module")
def net() -> StackedNet:
    return build("flow-mlp", 3, 28, 28, 3)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 28, 28, 3), dtype=np.uint8)


def plain(net: StackedNet, vector: torch.Tensor) -> nn.Sequential:
    """The same network from torch's own layers."""
    parts = {name: value[0] for name, value in net.views(vector[None]).items()}
    module = nn.Sequential(nn.Linear(588, 64), nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 3))
    for layer, name in ((0, "first"), (1, "norm"), (3, "last")):
        module[layer].weight.data = parts[f"{name}.weight"].clone()  # type: ignore[union-attr]
        module[layer].bias.data = parts[f"{name}.bias"].clone()  # type: ignore[union-attr]
    return module


def test_normalisation_is_by_clip_and_forgets_scale_and_offset(net: StackedNet, images: np.ndarray) -> None:
    x = net.prepare(images)
    assert x.shape == (20, 588) and x.dtype == np.float32
    changed = images.astype(np.float32) * (0.5, 2, 0.01) + (3, -7, 1)
    assert np.abs(net.prepare(changed.astype(np.float32)) - x).max() < 1e-4
    image = images[0].astype(np.float64)
    image -= np.median(image, (0, 1))
    image = np.clip(image / np.sqrt((image**2).mean((0, 1))), -4, 4)
    assert np.abs(image.reshape(14, 2, 14, 2, 3).mean((1, 3)).ravel() - x[0]).max() < 1e-4
    assert np.isfinite(net.prepare(np.full((1, 28, 28, 3), 9, np.uint8))).all()


def test_scores_equal_a_plain_module_averaged_over_the_mirror(net: StackedNet, images: np.ndarray) -> None:
    params = torch.from_numpy(np.stack([net.init(s) for s in range(3)]))
    found = net.logits(params, torch.from_numpy(net.prepare(images)), train=False)
    flow = images.astype(np.float32) - np.median(images, (1, 2), keepdims=True).astype(np.float32)
    mirrored = flow[:, :, ::-1] * np.float32([1, 1, -1])
    sides = [torch.from_numpy(net.prepare(side)) for side in (flow, mirrored)]
    for i in range(3):
        module = plain(net, params[i])
        with torch.no_grad():
            wanted = (module(sides[0]) + module(sides[1])) / 2
        assert torch.allclose(found[i], wanted, atol=1e-4)


def test_gradients_equal_a_plain_module(net: StackedNet, images: np.ndarray) -> None:
    y = np.arange(20) % 3
    params = torch.from_numpy(np.stack([net.init(s) for s in range(3)]))
    x = torch.from_numpy(net.prepare(images))
    rows = np.array([list(range(20)), [*range(5, 20), *[-1] * 5], [*range(9), *[-1] * 11]])
    targets = _targets(y, rows, np.ones((3, 3)), 0.0)
    found = net.gradients(params, x, rows, targets, None)
    for i in range(3):
        mine, module = rows[i][rows[i] >= 0], plain(net, params[i])
        loss = nn.functional.cross_entropy(module(x[mine]), torch.from_numpy(y[mine]))
        loss.backward()
        wanted = torch.cat([p.grad.flatten() for p in module.parameters()])  # type: ignore[union-attr]
        assert found.loss[i].item() == pytest.approx(loss.item(), abs=1e-5)
        assert torch.allclose(found.value[i], wanted, atol=1e-5)


def test_images_and_prepared_clips_give_the_same_scores(net: StackedNet, images: np.ndarray) -> None:
    params = torch.from_numpy(net.init(0))[None]
    pixels = torch.from_numpy(images[:4]).float().requires_grad_()
    found = net.logits(params, pixels, train=False)
    assert torch.allclose(found, net.logits(params, torch.from_numpy(net.prepare(images[:4])), train=False))
    found.square().sum().backward()
    assert pixels.grad is not None and pixels.grad.abs().max() > 0


def test_training_is_independent_of_the_stack_and_learns(net: StackedNet, images: np.ndarray) -> None:
    y = np.arange(20) % 3
    params = np.stack([net.init(s) for s in range(40)])
    settings: dict[str, Any] = {"steps": 30, "lr": 5e-3, "optimiser": "adamw", "schedule": "cosine"}
    x, rows = net.prepare(images), np.tile(np.arange(20), (40, 1))
    together = train_stack(net, params, x, y, rows=rows, seeds=range(40), **settings)
    alone = train_stack(net, params[7:8], x, y, rows=rows[7:8], seeds=[7], **settings)
    assert np.abs(alone[0] - together[7]).max() < 0.02 * np.abs(together[7] - params[7]).max()
    found = net.predict(torch.from_numpy(together[:1]), torch.from_numpy(x))[0].argmax(1)
    assert (found.numpy() == y).mean() > 0.9


def test_dropout_and_mirror_coins_depend_on_seed_and_step(net: StackedNet, images: np.ndarray) -> None:
    params = torch.from_numpy(net.init(0))[None].expand(2, -1)
    x = torch.from_numpy(net.prepare(images))

    def scores(seeds: list[int], step: int) -> torch.Tensor:
        return net.logits(params, x, train=True, generator=coins.Coins(seeds, [step, step]))

    same = scores([1, 1], 0)
    assert torch.equal(same[0], same[1]) and torch.equal(scores([1, 1], 0), same)
    assert not torch.equal(scores([1, 2], 0)[1], same[1]) and not torch.equal(scores([1, 1], 1), same)


@pytest.mark.parametrize(
    "shape, options",
    [
        ((3, 10, 28), {}),
        ((2, 28, 28), {}),
        ((3, 28, 28), {"hidden": 0}),
        ((3, 28, 28), {"x": 1}),
        ((3, 28, 28), {"augment": "no"}),
    ],
)
def test_misuse_is_named(shape: tuple[int, int, int], options: dict[str, int]) -> None:
    with pytest.raises(InputError):
        build("flow-mlp", *shape, 3, **options)


def test_augmentation_moves_clips_by_known_matrices(images: np.ndarray) -> None:
    """Half-way coins change nothing; the extreme ones shift by a cell, stretch by 10 % and gain 20 %."""
    from merveil.mer.models.flow_mlp import SIDE, _moved

    class Fixed:
        def __init__(self, value: list[float]) -> None:
            self.value = value

        def uniform(self, label: str, clips: int, features: int) -> np.ndarray:
            return np.tile(np.float32(self.value), (1, clips, 1))

    net = build("flow-mlp", 3, 28, 28, 3, augment=True)
    x = torch.from_numpy(net.prepare(images))[None]
    assert torch.allclose(_moved(x, Fixed([0.5] * 5)), x, atol=1e-5)  # type: ignore[arg-type]
    shifted = _moved(x, Fixed([0.5, 0.5, 1.0, 0.5, 1.0])).view(20, SIDE, SIDE, 3)  # type: ignore[arg-type]
    wanted = x.view(20, SIDE, SIDE, 3)[:, np.minimum(np.arange(SIDE) + 1, SIDE - 1)] * 1.2
    assert torch.allclose(shifted, wanted, atol=1e-4)
    params = torch.from_numpy(net.init(0))[None]
    clips = torch.from_numpy(net.prepare(images))

    def scores(step: int, train: bool) -> torch.Tensor:
        return net.logits(params, clips, train=train, generator=coins.Coins([1], [step]))

    assert not torch.equal(scores(0, True), scores(1, True)) and torch.equal(
        scores(0, False), scores(1, False)
    )


class Drawn:
    """Coins that always give these values in [0, 1)."""

    def __init__(self, value: list[float]) -> None:
        self.value = value

    def uniform(self, label: str, clips: int, features: int) -> np.ndarray:
        return np.tile(np.float32(self.value[:features]), (1, clips, 1))


def test_without_an_angle_turning_is_the_separable_move(images: np.ndarray) -> None:
    from merveil.mer.models.flow_mlp import _moved, _turned

    x = torch.from_numpy(build("flow-mlp", 3, 28, 28, 3).prepare(images))[None]
    for draw in ([0.5] * 6, [0.9, 0.2, 0.1, 0.8, 0.7, 0.5], [0.1, 0.6, 0.99, 0.3, 0.0, 0.5]):
        found = _turned(x, Drawn(draw), 30.0)  # type: ignore[arg-type]
        assert torch.allclose(found, _moved(x, Drawn(draw)), atol=1e-4)  # type: ignore[arg-type]


def test_turning_takes_the_vectors_along() -> None:
    """A linear flow f(p) = A p turned by R is R A R^T p, exactly so under linear interpolation."""
    from merveil.mer.models.flow_mlp import SIDE, _turned

    degrees, matrix = 20.0, np.array([[0.3, -1.1], [0.7, 0.4]])
    down, right = np.meshgrid(np.arange(SIDE) - 6.5, np.arange(SIDE) - 6.5, indexing="ij")
    points = np.stack([right, down], -1)  # x to the right, y down

    def field(a: np.ndarray) -> np.ndarray:
        flow = points @ a.T
        return np.stack([points @ [1.0, 2.0], flow[..., 1], flow[..., 0]], -1)  # strain, v, u

    x = torch.from_numpy(field(matrix).astype(np.float32).reshape(1, 1, -1))
    found = _turned(x, Drawn([0.5] * 5 + [1.0]), degrees).numpy().reshape(SIDE, SIDE, 3)  # type: ignore[arg-type]
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    wanted = field(turn @ matrix @ turn.T)
    wanted[..., 0] = points @ (turn @ [1.0, 2.0])
    inside = (np.hypot(right, down) < 6.5)[..., None]
    assert np.abs((found - wanted) * inside).max() < 1e-4


def test_turning_needs_augmentation_and_a_small_angle() -> None:
    for options in ({"augment": False, "rotate": 6.0}, {"rotate": 50.0}, {"rotate": -1.0}):
        with pytest.raises(InputError, match="rotate"):
            build("flow-mlp", 3, 28, 28, 3, **options)
