"""STSTNet: the published layers, and the stack against a plain torch module and against autograd."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from merveil.mer import coins
from merveil.mer.errors import InputError
from merveil.mer.models.plain import PlainSTSTNet, flat_grad, load
from merveil.mer.models.registry import MODELS, get
from merveil.mer.models.stacked import StackedNet, build
from merveil.mer.models.ststnet_kernel import tasks
from merveil.mer.train import _targets

# Layer by layer, MER.md section 3: name -> shape.
PUBLISHED = {
    "conv1.weight": (3, 3, 3, 3), "conv1.bias": (3,), "norm1.weight": (3,), "norm1.bias": (3,),
    "conv2.weight": (5, 3, 3, 3), "conv2.bias": (5,), "norm2.weight": (5,), "norm2.bias": (5,),
    "conv3.weight": (8, 3, 3, 3), "conv3.bias": (8,), "norm3.weight": (8,), "norm3.bias": (8,),
    "fc.weight": (3, 400), "fc.bias": (3,),
}  # fmt: skip


@pytest.mark.parametrize("norm, buffers", [("group", 0), ("batch", 32)])
def test_the_published_parameters(norm: str, buffers: int) -> None:
    net = build("ststnet", 3, 28, 28, 3, norm=norm)
    assert dict(net.layout) == PUBLISHED
    assert net.trainable == 1683 == get("ststnet").parameters(3, 28, 28, 3)
    assert net.size == 1683 + buffers
    assert sum(p.numel() for p in PlainSTSTNet(norm).parameters()) == 1683


def test_the_published_output_shapes() -> None:
    module = PlainSTSTNet("batch").eval()
    seen: dict[str, tuple[int, ...]] = {}
    for name, layer in module.named_children():

        def note(_layer: object, _inputs: object, out: torch.Tensor, name: str = name) -> None:
            seen.setdefault(name, tuple(out.shape))

        layer.register_forward_hook(note)
    module(torch.zeros(2, 3, 28, 28))
    assert [seen[f"conv{i}"] for i in (1, 2, 3)] == [(2, c, 30, 30) for c in (3, 5, 8)]
    assert seen["maxpool"] == (2, 3, 10, 10)
    assert seen["avgpool"] == (2, 16, 5, 5)
    assert seen["fc"] == (2, 3)


@pytest.mark.parametrize("height, width, channels, classes", [(28, 28, 3, 3), (29, 30, 3, 5), (31, 28, 2, 3)])
def test_parameter_count_at_other_shapes(height: int, width: int, channels: int, classes: int) -> None:
    net = build("ststnet", channels, height, width, classes)
    assert net.trainable == get("ststnet").parameters(channels, height, width, classes)


class Case:
    """Ten models on twenty clips with their own batches, class weights and label smoothing."""

    def __init__(self, norm: str, signs: bool, shape: tuple[int, int, int] = (28, 28, 3)) -> None:
        rng = np.random.default_rng(1)
        height, width, channels = shape
        self.net = build("ststnet", channels, height, width, 3, norm=norm)
        self.images = rng.integers(0, 256, (20, *shape), dtype=np.uint8)
        self.images[3] = 7  # a constant image: windows full of equal outputs
        self.y = rng.integers(0, 3, 20)
        self.x = torch.from_numpy(self.net.prepare(self.images))
        self.params = torch.from_numpy(np.stack([self.net.init(s) for s in range(10)]))
        if signs:  # negative norm weights turn the order of the outputs round
            for i in (1, 2, 3):
                weight = self.net.views(self.params)[f"norm{i}.weight"]
                weight *= torch.from_numpy(rng.choice([-1.0, 0.7, 1.0], tuple(weight.shape)))
        self.rows = np.full((10, 16), -1)
        for i in range(10):
            others = rng.permutation([j for j in range(20) if j % 10 != i])[: 16 - i % 3]
            self.rows[i, : len(others)] = others
        self.weight = rng.random((10, 3)) + 0.5
        self.targets = _targets(self.y, self.rows, self.weight, 0.1)
        self.coins = coins.Coins(range(10), [5] * 10)

    def module(self, i: int, dtype: torch.dtype = torch.float64) -> PlainSTSTNet:
        cells = self.net.windows.cells  # type: ignore[attr-defined]
        module = PlainSTSTNet("batch" if self.net.buffers else "group", self.images.shape[3], cells=cells)
        load(module, self.net, self.params[i])
        return module.to(dtype)

    def keep(self, i: int) -> torch.Tensor:
        windows: Any = self.net.windows  # type: ignore[attr-defined]
        bits = self.net.keep(self.coins, 16)[i][..., np.argsort(windows.order)]  # type: ignore[attr-defined]
        return torch.from_numpy(bits).double().reshape(16, 16, *windows.pooled)

    def plain_images(self, rows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self.images[rows]).permute(0, 3, 1, 2).double()


@pytest.mark.parametrize("norm", ["group", "batch"])
@pytest.mark.parametrize("signs", [False, True])
@pytest.mark.parametrize("shape", [(28, 28, 3), (29, 31, 2)])
def test_gradients_equal_the_plain_module(norm: str, signs: bool, shape: tuple[int, int, int]) -> None:
    case = Case(norm, signs, shape)
    found = case.net.gradients(case.params, case.x, case.rows, case.targets, case.coins)
    for i in range(10):
        rows = case.rows[i][case.rows[i] >= 0]
        module = case.module(i)
        loss = torch.nn.functional.cross_entropy(
            module(case.plain_images(rows), case.keep(i)[: len(rows)]),
            torch.from_numpy(case.y[rows]),
            weight=torch.from_numpy(case.weight[i]),
            label_smoothing=0.1,
        )
        loss.backward()
        wanted = flat_grad(module, case.net)
        assert found.loss[i].item() == pytest.approx(loss.item(), abs=1e-5)
        assert torch.allclose(found.value[i].double(), wanted, atol=3e-5 * wanted.abs().max().item())
        if norm == "batch":
            kept = [getattr(module, f"norm{k}") for k in (1, 2, 3)]
            running = torch.cat([torch.cat([n.running_mean, n.running_var]) for n in kept])
            assert torch.allclose(found.buffers[i].double(), running, rtol=1e-5)


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_predictions_equal_the_plain_module(norm: str) -> None:
    case = Case(norm, signs=True)
    if norm == "batch":  # statistics of their own, as after training
        case.params[:, case.net.trainable :] = torch.rand(10, 32) * 50 + 1
    found = case.net.predict(case.params, case.x)
    general = torch.softmax(case.net.logits(case.params, case.x, train=False), -1)
    for i in range(10):
        with torch.no_grad():
            wanted = torch.softmax(case.module(i).eval()(case.plain_images(np.arange(20))), -1)
        assert torch.allclose(found[i].double(), wanted, atol=1e-5)
        assert torch.allclose(general[i].double(), wanted, atol=1e-5)


def test_hand_written_gradients_equal_autograd_on_the_stack() -> None:
    case = Case("group", signs=True)
    arguments = (case.params, case.x, case.rows, case.targets, case.coins)
    by_hand, by_autograd = case.net.gradients(*arguments), StackedNet.gradients(case.net, *arguments)
    scale = by_autograd.value.abs().max().item()
    assert torch.allclose(by_hand.value, by_autograd.value, atol=1e-5 * scale)


def test_batch_training_logits_equal_the_plain_module() -> None:
    case = Case("batch", signs=False)
    found = case.net.logits(case.params[:2], case.x, train=True)
    wanted = torch.stack(
        [case.module(i)(case.plain_images(np.arange(20)), torch.full((20, 16, 10, 10), 0.5)) for i in (0, 1)]
    )
    assert torch.allclose(found.double(), wanted, atol=1e-4)


def test_logits_of_images_carry_gradients_to_the_pixels() -> None:
    case = Case("group", signs=False)
    images = torch.from_numpy(case.images[:4]).float().requires_grad_()
    from_images = case.net.logits(case.params[:1], images, train=False)
    assert torch.equal(from_images, case.net.logits(case.params[:1], case.x[:4], train=False))
    from_images.square().sum().backward()
    assert images.grad is not None and images.grad.abs().max() > 0


def test_a_model_does_not_depend_on_its_neighbours() -> None:
    case = Case("group", signs=False)
    together = case.net.gradients(case.params, case.x, case.rows, case.targets, case.coins).value
    for i in (0, 9):
        own = coins.Coins([i], [5])
        alone = case.net.gradients(
            case.params[i : i + 1], case.x, case.rows[i : i + 1], case.targets[i : i + 1], own
        ).value
        assert torch.allclose(together[i], alone[0], rtol=1e-4, atol=1e-5 * together[i].abs().max().item())


def test_tasks_cover_every_clip_of_every_model_once() -> None:
    rng = np.random.default_rng(3)
    rows = np.full((23, 30), -1)
    for i in range(20):  # much shared, little shared, and none
        chosen = rng.permutation(40 if i < 12 else 400)[: 30 if i < 12 else 7]
        rows[i, : len(chosen)] = chosen
    rows[12] = rows[0]
    seen = {
        (int(m), int(c))
        for t in tasks(rows)
        for k, m in enumerate(t.models)
        for c in t.clips[t.place[k] >= 0]
    }
    assert seen == {(i, int(c)) for i in range(23) for c in rows[i][rows[i] >= 0]}
    for task in tasks(rows):
        for k, model in enumerate(task.models):
            inside = task.place[k] >= 0
            assert (rows[model, task.place[k][inside]] == task.clips[inside]).all()


def test_init_is_torch_default_and_depends_on_the_seed_alone() -> None:
    net = build("ststnet", 3, 28, 28, 3)
    first = net.init(4)
    assert first.dtype == np.float32 and (first == net.init(4)).all() and (first != net.init(5)).any()
    parts = net.views(torch.from_numpy(first)[None])
    bound = 1 / np.sqrt(27)
    assert parts["conv3.weight"].abs().max() <= bound and parts["conv3.weight"].abs().max() > 0.9 * bound
    assert parts["fc.weight"].abs().max() <= 1 / 20 and parts["fc.weight"].abs().max() > 0.9 / 20
    assert (parts["norm2.weight"] == 1).all() and (parts["norm2.bias"] == 0).all()


def test_prepare_takes_bytes_as_they_are_and_scales_floats_by_clip_and_channel() -> None:
    net = build("ststnet", 3, 28, 28, 3)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 28, 28, 3), dtype=np.uint8)
    images[:, 0, 0], images[:, 1, 1] = 0, 255
    columns = net.prepare(images)
    assert columns.shape == (3, 28, 900) and columns.dtype == np.float32
    assert columns[0].max() == 255
    floats = images.astype(np.float32) / 255 * 0.4 - 0.1
    assert np.abs(net.prepare(floats) - columns).max() < 1e-3
    assert np.isfinite(net.prepare(np.zeros((1, 28, 28, 3), np.float32))).all()


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: build("stst", 3, 28, 28, 3), "there are: "),
        (lambda: build("ststnet", 3, 28, 28, 3, norm="layer"), "'group' or 'batch'"),
        (lambda: build("ststnet", 3, 28, 28, 3, units=2), "has no option 'units'"),
        (lambda: build("ststnet", 3, 2, 2, 3).prepare(np.zeros((1, 28, 28, 3), np.uint8)), "2x2"),
        (lambda: build("ststnet", 3, 28, 28, 3).prepare(np.zeros((1, 30, 28, 3), np.uint8)), "28x28x3"),
        (lambda: get("kernel-ridge").build((28, 28, 3), 3, {}), "closed form"),
    ],
)
def test_misuse_is_named(call: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        call()


def test_every_network_of_the_registry_builds_and_counts() -> None:
    for name, info in MODELS.items():
        if info.kind == "network":
            net = build(name, 3, 28, 28, 3)
            assert net.trainable == info.parameters(3, 28, 28, 3)
            assert "default" in info.recipes


STEPS = """
import hashlib
import numpy as np, torch
from merveil.mer.coins import Coins
from merveil.mer.models.stacked import build
torch.set_num_threads(1)
rng, digest = np.random.default_rng(1), hashlib.sha256()
for norm in ("group", "batch"):
    net = build("ststnet", 3, 28, 28, 3, norm=norm)
    x = torch.from_numpy(net.prepare(rng.integers(0, 256, (20, 28, 28, 3), dtype=np.uint8)))
    params = torch.from_numpy(np.stack([net.init(s) for s in range(10)]))
    rows = np.tile(np.arange(16), (10, 1))
    targets = torch.from_numpy(np.eye(3, dtype=np.float32)[rng.integers(0, 3, rows.shape)] / 16)
    found = net.gradients(params, x, rows, targets, Coins(range(10), [5] * 10))
    digest.update(found.value.numpy().tobytes() + net.predict(params, x).numpy().tobytes())
print(digest.hexdigest())
"""


def test_the_process_that_compiles_gets_the_bits_of_those_that_load(tmp_path: Path) -> None:
    """The passes are compiled on first use and loaded later: a run is repeatable from its first day on."""
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "numba"), "OMP_NUM_THREADS": "1"}
    found = [
        subprocess.run([sys.executable, "-c", STEPS], env=env, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert any((tmp_path / "numba").rglob("*.nbc")), "nothing was kept, so nothing was loaded"
    assert found[0].stdout == found[1].stdout and len(found[0].stdout.strip()) == 64
