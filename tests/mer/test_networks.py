"""The further networks: published sizes, plain torch modules as the truth, norms, coins, and learning."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from merveil.mer.coins import Coins
from merveil.mer.errors import InputError
from merveil.mer.models.registry import MODELS
from merveil.mer.models.stacked import StackedNet, build
from merveil.mer.train import _targets, predict_stack, train_stack

FORMS: list[tuple[str, dict[str, Any], int]] = [
    ("off-apexnet", {}, 2_664_475),
    ("off-apexnet", {"head": "gap"}, 5_144 + 33 * 3),
    ("rcn", {}, 15_331),
    ("rcn", {"norm": "batch"}, 15_331),
    ("rcn", {"filters": 64}, 51_139),
    ("dual-inception", {}, 6_449_867),
    ("dual-inception", {"head": "gap"}, 23_240 + 129 * 3),
    ("featref", {}, 98_123),
    ("compact-transformer", {}, 46_179),
    ("flow-softmax", {}, 75),
    ("flow-softmax", {"side": 7}, 234),
]
SMALL = [form for form in FORMS if form[2] < 20_000 or form[0] in ("featref", "compact-transformer")]


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, 28, 28, 3), dtype=np.uint8)


def maps(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize("name, options, size", FORMS)
def test_published_sizes(name: str, options: dict[str, Any], size: int) -> None:
    net = build(name, 3, 28, 28, 3, **options)
    assert net.trainable == size and net.init(0).shape == (net.size,)
    if not options:
        for h, w, k in ((28, 28, 3), (56, 28, 5)):
            assert MODELS[name].parameters(3, h, w, k) == build(name, 3, h, w, k).trainable


class Plain(nn.Module):
    """Torch's own layers under the stack's names, filled from one vector."""

    def __init__(self, net: StackedNet, vector: torch.Tensor) -> None:
        super().__init__()
        self.parts = {name: value[0].clone() for name, value in net.views(vector[None]).items()}

    def layer(self, name: str, kind: Any, *sizes: int, **more: Any) -> nn.Module:
        made = kind(*sizes, **more)
        made.load_state_dict({"weight": self.parts[f"{name}.weight"], "bias": self.parts[f"{name}.bias"]})
        return made


def test_off_apexnet_is_its_layers(images: np.ndarray) -> None:
    net = build("off-apexnet", 3, 28, 28, 3, input="bytes")
    vector = torch.from_numpy(net.init(1))
    plain, streams = Plain(net, vector), []
    for stream, channel in (("u", 2), ("v", 1)):
        one = nn.Sequential(
            plain.layer(f"{stream}.conv1", nn.Conv2d, 1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            plain.layer(f"{stream}.conv2", nn.Conv2d, 6, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        streams.append(one(maps(images)[:, channel : channel + 1]))
    head = nn.Sequential(
        plain.layer("fc1", nn.Linear, 1568, 1024), nn.ReLU(),
        plain.layer("fc2", nn.Linear, 1024, 1024), nn.ReLU(), plain.layer("fc3", nn.Linear, 1024, 3),
    )  # fmt: skip
    wanted = head(torch.cat(streams, 1).flatten(1))
    found = net.logits(vector[None], torch.from_numpy(net.prepare(images)), train=False)[0]
    assert torch.allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("form", ["group", "batch"])
def test_rcn_is_its_layers(images: np.ndarray, form: str) -> None:
    net = build("rcn", 3, 28, 28, 3, norm=form, input="bytes")
    vector = torch.from_numpy(net.init(1))
    vector = vector + 0.1 * torch.rand(net.size, generator=torch.Generator().manual_seed(0))
    plain = Plain(net, vector)

    def norm(name: str) -> nn.Module:
        made = nn.BatchNorm2d(32) if form == "batch" else nn.GroupNorm(1, 32)
        state = {n.removeprefix(f"{name}."): v for n, v in plain.parts.items() if n.startswith(f"{name}.")}
        made.load_state_dict(state, strict=False)
        return made.eval()

    pool, cells = nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(5)
    x = pool(torch.relu(norm("norm1")(plain.layer("first", nn.Conv2d, 3, 32, 5)(maps(images)))))
    shared = nn.Sequential(plain.layer("again", nn.Conv2d, 32, 32, 3, padding=1), norm("norm3"), nn.ReLU())
    y = torch.relu(norm("norm2")(plain.layer("across", nn.Conv2d, 32, 32, 1)(x)))
    y = pool(shared(x + shared(x + y)))
    attention = torch.zeros(len(images), 1, 5, 5)
    for k in range(3):
        cam = (plain.parts["fc.weight"][k].view(32, 5, 5) * cells(x)).mean(1, keepdim=True)
        cam = cam - cam.flatten(1).min(1).values.view(-1, 1, 1, 1)
        attention += cam / cam.flatten(1).max(1).values.view(-1, 1, 1, 1) / 3
    wanted = plain.layer("fc", nn.Linear, 800, 3)((cells(y) * attention).flatten(1))
    found = net.logits(vector[None], torch.from_numpy(net.prepare(images)), train=False)[0]
    assert torch.allclose(found, wanted, atol=1e-4)


def test_dual_inception_is_its_layers(images: np.ndarray) -> None:
    net = build("dual-inception", 3, 28, 28, 3, head="gap", input="bytes")
    vector = torch.from_numpy(net.init(1))
    plain, streams = Plain(net, vector), []
    for stream, channel in (("u", 2), ("v", 1)):
        x, inputs = maps(images)[:, channel : channel + 1], 1
        for block, width in ((1, 6), (2, 16)):
            n = f"{stream}.block{block}"
            paths = [
                plain.layer(f"{n}.a2", nn.Conv2d, width, width, 5, padding=2)(
                    plain.layer(f"{n}.a1", nn.Conv2d, inputs, width, 1)(x).relu()
                ),
                plain.layer(f"{n}.b2", nn.Conv2d, width, width, 3, padding=1)(
                    plain.layer(f"{n}.b1", nn.Conv2d, inputs, width, 1)(x).relu()
                ),
                plain.layer(f"{n}.c1", nn.Conv2d, inputs, width, 1)(nn.MaxPool2d(3, 1, 1)(x)),
                plain.layer(f"{n}.d1", nn.Conv2d, inputs, width, 1)(x),
            ]
            x, inputs = nn.MaxPool2d(2)(torch.cat(paths, 1).relu()), 4 * width
        streams.append(x)
    wanted = plain.layer("fc", nn.Linear, 128, 3)(torch.cat(streams, 1).mean((2, 3)))
    found = net.logits(vector[None], torch.from_numpy(net.prepare(images)), train=False)[0]
    assert torch.allclose(found, wanted, atol=1e-5)


def test_a_transformer_block_is_torch_s_own(images: np.ndarray) -> None:
    net: Any = build("compact-transformer", 3, 28, 28, 3)
    vector = torch.from_numpy(net.init(1))
    parts = {name: value[0] for name, value in net.views(vector[None]).items()}
    layer = nn.TransformerEncoderLayer(48, 4, 96, 0, "gelu", batch_first=True, norm_first=True).eval()
    names = {
        "self_attn.in_proj_": "qkv.", "self_attn.out_proj.": "out.", "linear1.": "up.", "linear2.": "down.",
        "norm1.": "norm1.", "norm2.": "norm2.",
    }  # fmt: skip
    state = {f"{a}{w}": parts[f"block0.{b}{w}"] for a, b in names.items() for w in ("weight", "bias")}
    layer.load_state_dict(state)
    from merveil.mer.models.single import Pass

    run, tokens = Pass(parts, False), torch.randn(2, 16, 48)
    mine = tokens + net._attend(run, "block0", tokens)
    mine = mine + net._mix(run, "block0", mine)
    with torch.no_grad():
        assert torch.allclose(mine, layer(tokens), atol=1e-5)


def test_patches_are_places_of_the_image(images: np.ndarray) -> None:
    """A change in one patch changes the token of that patch before attention mixes them."""
    net: Any = build("compact-transformer", 3, 28, 28, 3, input="bytes")
    parts = {name: value[0] for name, value in net.views(torch.from_numpy(net.init(1))[None]).items()}
    changed = images[:1].copy()
    changed[0, 7:14, 21:28] = 255 - changed[0, 7:14, 21:28]
    seen = []
    for batch in (images[:1], changed):
        x = torch.from_numpy(net.prepare(batch))
        tiles = x.unflatten(2, (4, 7)).unflatten(4, (4, 7))
        tokens = tiles.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2) @ parts["embed.weight"].T
        seen.append(tokens)
    assert torch.nonzero((seen[0] != seen[1]).any(-1)[0]).ravel().tolist() == [7]


@pytest.mark.parametrize("name, options, _", SMALL)
def test_a_result_does_not_depend_on_the_stack(
    name: str, options: dict[str, Any], _: int, images: np.ndarray
) -> None:
    net, y = build(name, 3, 28, 28, 3, **options), np.arange(12) % 3
    params, x = np.stack([net.init(s) for s in range(3)]), net.prepare(images)
    rows = np.array([list(range(12)), [*range(3, 9), *[-1] * 6], [-1] * 12])
    together = train_stack(net, params, x, y, rows=rows, steps=3, lr=1e-3, seeds=[0, 1, 2])
    alone = train_stack(net, params[1:2], x, y, rows=rows[1:2, :6], steps=3, lr=1e-3, seeds=[1], threads=2)
    assert np.allclose(alone[0], together[1], atol=1e-6)
    assert np.array_equal(together[2], params[2]) and not np.array_equal(together[0], params[0])


@pytest.mark.parametrize("name, options, _", SMALL)
def test_gradients_are_autograd_s(name: str, options: dict[str, Any], _: int, images: np.ndarray) -> None:
    net, y = build(name, 3, 28, 28, 3, **options), np.arange(12) % 3
    params = torch.from_numpy(np.stack([net.init(s) for s in range(2)]))
    x, rows = torch.from_numpy(net.prepare(images)), np.tile(np.arange(12), (2, 1))
    coins = Coins([3, 4], [0, 0])
    found = net.gradients(params, x, rows, _targets(y, rows, np.ones((2, 3)), 0.0), coins)
    leaf = params.clone().requires_grad_()
    scores = net.logits(leaf, x, train=True, generator=coins)
    losses = [nn.functional.cross_entropy(s, torch.from_numpy(y)) for s in scores]
    (wanted,) = torch.autograd.grad(sum(losses), leaf)
    assert torch.allclose(found.value, wanted[:, : net.trainable], atol=1e-5)
    assert torch.allclose(found.loss, torch.stack(losses).detach(), atol=1e-5)


def test_running_statistics_follow_the_batches(images: np.ndarray) -> None:
    net = build("rcn", 3, 28, 28, 3, norm="batch", input="bytes")
    params = net.init(0)[None]
    module = nn.BatchNorm2d(32)
    parts = net.views(torch.from_numpy(params))
    first = nn.functional.conv2d(maps(images), parts["first.weight"][0], parts["first.bias"][0])
    module(first)
    after = train_stack(net, params, net.prepare(images), np.arange(12) % 3, rows=np.arange(12)[None],
                        steps=1, lr=1e-9, seeds=[0])  # fmt: skip
    found = net.views(torch.from_numpy(after))
    assert torch.allclose(found["norm1.running_mean"][0], module.running_mean, atol=1e-5)
    assert torch.allclose(found["norm1.running_var"][0], module.running_var, atol=1e-5)
    assert predict_stack(net, after, net.prepare(images)).shape == (1, 12, 3)


def test_flow_input_forgets_grey_level_and_scale(images: np.ndarray) -> None:
    net = build("featref", 3, 28, 28, 3)
    x = net.prepare(images)
    changed = (images.astype(np.float32) * (0.5, 2, 0.01) + (3, -7, 1)).astype(np.float32)
    assert np.abs(net.prepare(changed) - x).max() < 1e-2 and x.shape == (12, 3, 28, 28)
    pixels = torch.from_numpy(images[:2]).float().requires_grad_()
    net.logits(torch.from_numpy(net.init(0))[None], pixels, train=False).square().sum().backward()
    assert pixels.grad is not None and pixels.grad.abs().max() > 0


def test_dropout_differs_by_layer_seed_and_step(images: np.ndarray) -> None:
    net = build("compact-transformer", 3, 28, 28, 3)
    params, x = torch.from_numpy(net.init(0))[None], torch.from_numpy(net.prepare(images))

    def scores(seed: int, step: int) -> torch.Tensor:
        return net.logits(params, x, train=True, generator=Coins([seed], [step]))

    assert torch.equal(scores(1, 0), scores(1, 0))
    assert not torch.equal(scores(1, 0), scores(2, 0)) and not torch.equal(scores(1, 0), scores(1, 1))


@pytest.mark.parametrize("name, options, _", SMALL)
def test_it_learns(name: str, options: dict[str, Any], _: int) -> None:
    rng, y = np.random.default_rng(1), np.arange(12) % 3
    coarse = np.kron(rng.normal(size=(3, 4, 4, 3)), np.ones((1, 7, 7, 1)))[y]
    x = 128 + 30 * coarse + 10 * rng.normal(size=coarse.shape)
    net = build(name, 3, 28, 28, 3, **options)
    x = net.prepare(np.clip(x, 0, 255).astype(np.uint8))
    params = train_stack(net, net.init(0)[None], x, y, rows=np.arange(12)[None], steps=40, lr=5e-3, seeds=[0])
    assert (predict_stack(net, params, x)[0].argmax(1) == y).mean() > 0.9


@pytest.mark.parametrize(
    "name, shape, options",
    [
        ("off-apexnet", (3, 28, 28), {"head": "fc"}),
        ("off-apexnet", (3, 3, 28), {}),
        ("rcn", (3, 28, 28), {"norm": "layer"}),
        ("rcn", (3, 10, 28), {}),
        ("dual-inception", (3, 28, 28), {"head": 1}),
        ("featref", (2, 28, 28), {}),
        ("compact-transformer", (3, 30, 28), {}),
        ("compact-transformer", (3, 28, 28), {"input": "raw"}),
        ("featref", (3, 28, 28), {"head": "gap"}),
    ],
)
def test_misuse_is_named(name: str, shape: tuple[int, int, int], options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=name):
        build(name, *shape, 3, **options)
