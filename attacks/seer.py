"""Weights of a start model trained together with a secret decoder of the summed gradient (SEER).

The decoder is linear: one secret direction over the hidden units of a fully connected first layer takes the
layer's gradient [units, inputs] to one image [inputs], and its bias's gradient to that image's weight. Each
clip of a sum stands in it with its gain, so what is trained is that one clip of a sum has almost all of the
gain: the clips without the property fall into the decoder's null space. The loss is the share of the gain's
power that lies elsewhere (null space) plus one minus the correlation of the decoded image with the clip of
the largest gain (reconstruction). Unlike the source's, the property is not named beforehand (brightest,
darkest): it is whatever scalar of a clip the gain has become, and as secret as the decoder.
Nothing of the federation is used: only clips of people outside, and weights and labels as they are public.
Source: Garov et al., ICLR 2024 (Hiding in plain sight), sections 4.1-4.3.
"""

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from merveil.attacks.base import Floats
from merveil.attacks.probe import build
from merveil.fl.gate import Bounds, suspicion
from merveil.fl.update import Layout
from merveil.mer.models.flow_mlp import SIDE, FlowMLP
from merveil.mer.models.stacked import StackedNet

ROUNDS = 40  # for which one prepared model is sent to ever new cohorts
STARTS = 3  # preparations, of which the one that reads outside people's sums best is sent
STEPS, RATE = 700, 2e-3  # of Adam, with a cosine schedule
CHOSEN_ON = 1024  # sums that preparations are compared on
SUMS = 128  # drawn anew at each step, of the clips' gains
FLOOR = 3e-3  # gains below it drown in the codec's rounding
SHIFT, STRETCH, NOISE = 1.5, 0.15, 0.1  # of the clips at each step: cells, share, normalised flow


@dataclass(frozen=True)
class Plan:
    """What a server needs to prepare one model. digest: of the images, which are left out of comparisons."""

    digest: str
    shape: tuple[int, int, int]
    classes: int
    options: tuple[tuple[str, Any], ...]
    class_weight: tuple[float, ...]
    clips: int  # of one client
    cohort: int
    seed: int
    images: NDArray[Any] = field(compare=False, repr=False)
    labels: NDArray[np.int64] = field(compare=False, repr=False)


@dataclass(frozen=True, eq=False)
class Secret:
    """What the server keeps. direction: float64 [units], length one. honest: the model [P] that it began
    with. refused: what a member's gate says to the model sent first, and sent after the honest one."""

    direction: Floats = field(repr=False)
    honest: NDArray[np.float32] = field(repr=False)
    refused: tuple[bool, bool]


def plan(
    images: NDArray[Any], labels: NDArray[np.int64], class_weight: Floats, setting: Any, seed: int
) -> Plan:
    """A plan for clients as a setting has them (`attacks.scenario.Setting`)."""
    digest = hashlib.sha256(np.ascontiguousarray(images).tobytes() + labels.tobytes()).hexdigest()
    weight = tuple(float(w) for w in class_weight)
    shape = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
    clients = setting.clips, setting.cohort
    return Plan(digest, shape, len(weight), setting.options, weight, *clients, seed, images, labels)


@lru_cache(maxsize=8)
def prepared(made: Plan) -> tuple[NDArray[np.float32], Secret]:
    """The start model [P] and the secret; the same for the same plan. About half a minute."""
    h, w, c = made.shape
    net = build("flow-mlp", c, h, w, made.classes, **dict(made.options))
    assert isinstance(net, FlowMLP)
    honest = net.init(made.seed)
    model, direction = best(net, honest, made)
    layout = Layout.of(net.layout)
    told = [bool(suspicion(layout, model, before, Bounds())) for before in (None, honest)]
    return model, Secret(direction, honest, (told[0], told[1]))


def best(net: FlowMLP, honest: NDArray[np.float32], made: Plan) -> tuple[NDArray[np.float32], Floats]:
    """Of STARTS preparations the one with the least loss on sums of the plan's clips as they are."""
    found = [train(net, honest, made, start) for start in range(STARTS)]
    clips, labels = torch.from_numpy(net.prepare(made.images)), torch.from_numpy(made.labels)
    losses = []
    for model, direction in found:
        params = torch.from_numpy(model).requires_grad_(True)
        gain = gains(net, params, torch.from_numpy(direction).float(), clips, labels).detach()
        sums = _drawn(made, gain, labels, np.random.default_rng([made.seed, 84]), CHOSEN_ON)
        losses.append(float(_loss(clips, *sums)))
    return found[int(np.argmin(losses))]


def train(
    net: FlowMLP, honest: NDArray[np.float32], made: Plan, start: int = 0
) -> tuple[NDArray[np.float32], Floats]:
    """Model [P] and direction [units] from an honest model and the plan's clips. start: of the coins."""
    torch.set_num_threads(1)
    rng = np.random.default_rng([made.seed, 83, start])
    coins = torch.Generator().manual_seed(made.seed * STARTS + start)
    clips = torch.from_numpy(net.prepare(made.images))
    prior = np.bincount(made.labels, minlength=made.classes) / len(made.labels)
    params = torch.from_numpy(honest.copy()).requires_grad_(True)
    direction = torch.randn(net.hidden, generator=coins).requires_grad_(True)
    optimiser = torch.optim.Adam([params, direction], lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS, RATE / 20)
    for _ in range(STEPS):
        x = _varied(net, clips, rng, coins)
        # Labels by their frequency alone: the gain must not rest on what a clip's label is.
        y = torch.from_numpy(rng.choice(made.classes, len(x), p=prior))
        gain = gains(net, params, direction, x, y)
        loss = _loss(x, *_drawn(made, gain, y, rng, SUMS))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    found = direction.detach().double().numpy()
    return params.detach().numpy().copy(), found / np.linalg.norm(found)


def gains(net: FlowMLP, params: Any, direction: Any, x: Any, y: Any) -> Any:
    """What each clip x [n, inputs] with label y [n] brings into the decoder's direction: [n], differentiable.

    The first layer's gradient of a clip is d x^T with d [units]; the gain is d along the direction.
    """
    parts = net.views(params[None])
    units = x @ parts["first.weight"][0].T + parts["first.bias"][0]
    seen = functional.layer_norm(units, (net.hidden,)) * parts["norm.weight"][0] + parts["norm.bias"][0]
    scores = functional.gelu(seen) @ parts["last.weight"][0].T + parts["last.bias"][0]
    loss = functional.cross_entropy(scores, y, reduction="sum")
    (d,) = torch.autograd.grad(loss, units, create_graph=True)
    return d @ (direction / direction.norm())


def _drawn(made: Plan, gain: Any, y: Any, rng: np.random.Generator, sums: int) -> tuple[Any, Any]:
    """Sums of a cohort drawn from clips: rows and client-weighted gains [sums, clips]."""
    size = min(made.clips * made.cohort, len(gain) // made.clips * made.clips)
    rows = torch.from_numpy(np.stack([rng.permutation(len(gain))[:size] for _ in range(sums)]))
    mass = torch.tensor(made.class_weight, dtype=torch.float32)[y][rows].unflatten(1, (-1, made.clips))
    return rows, gain[rows] * (mass / mass.sum(-1, keepdim=True)).flatten(1)


def _loss(x: Any, rows: Any, own: Any) -> Any:
    """Null space and reconstruction, mean over sums: rows, own [sums, clips] of clips x [n, inputs]."""
    power = own.square()
    most, at = power.max(1)
    null = 1 - most / (power.sum(1) + FLOOR**2)
    decoded = torch.zeros(len(rows), len(x)).scatter(1, rows, own) @ x
    each = torch.arange(len(rows))
    match = _correlation(decoded * own[each, at].sign()[:, None], x[rows[each, at]])
    return (null + 1 - match * most / (most + FLOOR**2)).mean()


def _correlation(a: Any, b: Any) -> Any:
    """Mean over channels of the correlation of images [n, inputs]: [n]."""
    a, b = (v.unflatten(1, (SIDE * SIDE, -1)) for v in (a, b))
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-6)).mean(1)


def _varied(net: FlowMLP, clips: Any, rng: np.random.Generator, coins: Any) -> Any:
    """The clips mirrored by a coin, shifted, stretched, with a little noise: few people stand for many."""
    flip = torch.from_numpy(rng.random(len(clips)) < 0.5)[:, None]
    maps = torch.where(flip, net._mirrored(clips), clips).unflatten(1, (SIDE, SIDE, -1))
    cells, middle = torch.arange(SIDE, dtype=torch.float32), (SIDE - 1) / 2
    draw = torch.from_numpy(rng.uniform(-1, 1, (4, len(clips), 1)).astype(np.float32))
    at = ((cells - middle) * (1 + STRETCH * draw[:2]) + middle + SHIFT * draw[2:]).clamp(0, SIDE - 1)
    tents = (1 - (at[..., None] - cells).abs()).clamp_min(0)  # [2, n, SIDE, SIDE]: rows, columns
    moved = torch.einsum("nab,ncd,nbde->nace", tents[0], tents[1], maps).flatten(1)
    return moved + NOISE * torch.randn(moved.shape, generator=coins)


def snr(net: StackedNet, params: NDArray[np.float32], x: Any, y: Any) -> float:
    """What a member could check with its own clips: how far one of them stands out of their gradient.

    max over layers and clips i of |g_i| / sqrt(sum over the others of |g_j|^2). x [n, inputs], y [n].
    Source: Garov et al., section 3 (D-SNR).
    """
    rows = torch.from_numpy(np.tile(params, (len(x), 1))).requires_grad_(True)
    scores = torch.log_softmax(net.logits(rows, x[:, None], train=True)[:, 0], -1)
    (each,) = torch.autograd.grad(-scores.gather(1, y[:, None]).sum(), rows)
    found = 0.0
    for values in net.views(each).values():
        if values.ndim > 2:  # weights; biases are not judged
            power = values.flatten(1).square().sum(1)
            rest = (power.sum() - power.max()).clamp_min(1e-30)
            found = max(found, float((power.max() / rest).sqrt()))
    return found
