"""Rebuilding clips from an update, three ways: exactly, by its direction, by its direction and length.

exact: a fully connected layer that sees one clip has gradients dW = d x^T and db = d, so x = dW / db.
by_direction: cosine of the replayed and the seen update plus total variation, sign-Adam with a decaying
step. by_length: squared distance, L-BFGS, no prior. The two searches run all clients and restarts as one
stack, several clips a client where the client held several, and replay every local step.
Sources: Phong et al., TIFS 2018; Geiping et al., NeurIPS 2020; Zhu et al., NeurIPS 2019 (DLG).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.attacks.base import Floats, Public
from merveil.attacks.replay import Replay, scaled

Index = NDArray[np.int64]


@dataclass(frozen=True)
class Budget:
    """Fixed beforehand and disclosed in the report: iterations, restarts, first step, smoothness weight."""

    iterations: int = 150
    restarts: int = 1
    step: float = 0.25  # in units of the outside data's standard deviation
    smooth: float = 0.04


class Space:
    """What is searched: images on the 0-255 scale, or the block means of a network that reads nothing else.

    z, the free variables, are in units of the outside data's spread around its mean.
    """

    def __init__(self, replay: Replay) -> None:
        public, torch = replay.public, replay.torch
        if public.model == "flow-mlp":
            flat = replay.net.prepare(public.proxy_x)
            side = int(np.sqrt(flat.shape[1] // public.shape[2]))
            data, self.low, self.high = flat.reshape(len(flat), side, side, public.shape[2]), -4.0, 4.0
        else:
            data, self.low, self.high = scaled(public.proxy_x), 0.0, 255.0
        self.shape, self.flat = data.shape[1:], public.model == "flow-mlp"
        self.outside = data
        self.mean = torch.from_numpy(data.mean(axis=(0, 1, 2), keepdims=True)[0])
        self.spread = torch.from_numpy(data.std(axis=(0, 1, 2), keepdims=True)[0])

    @property
    def peak(self) -> float:
        return self.high - self.low

    def image(self, z: Any) -> Any:
        """Free variables [..., h, w, c] to images, held inside the scale."""
        return (self.mean + self.spread * z).clamp(self.low, self.high)

    def fed(self, image: Any) -> Any:
        """What the network is given."""
        return image.flatten(-3) if self.flat else image

    def truth(self, replay: Replay, x: NDArray[Any]) -> Floats:
        """Raw clips [n,h,w,c] in this space."""
        if self.flat:
            return replay.net.prepare(x).reshape(len(x), *self.shape).astype(np.float64)
        return scaled(x).astype(np.float64)


def exact(replay: Replay, targets: Floats, space: Space) -> NDArray[np.float32]:
    """Images [n, ...] of clients with one clip: sum db_i dW_i / sum db_i^2 over the first layer's units."""
    weight, bias, shape = replay.hidden_layer()
    dw, db = targets[:, weight].reshape(-1, *shape), targets[:, bias]
    power = np.maximum((db**2).sum(1), 1e-30)[:, None]
    return np.asarray((db[:, :, None] * dw).sum(1) / power, dtype=np.float32).reshape(-1, *space.shape)


def _roughness(torch: Any, z: Any) -> Any:
    """Total variation per client [N], mean absolute difference of neighbours, mean over its clips."""
    down = (z[:, :, 1:] - z[:, :, :-1]).abs().mean((1, 2, 3, 4))
    return down + (z[:, :, :, 1:] - z[:, :, :, :-1]).abs().mean((1, 2, 3, 4))


def _gap(replay: Replay, fed: Any, y: Any, aim: Any) -> Any:
    """1 - cosine between the update of each client's clips and its target, [N]."""
    update = replay.update(fed, y, graph=True)
    return 1.0 - (update * aim).sum(1) / update.norm(dim=1).clamp_min(1e-12)


def by_direction(
    replay: Replay,
    targets: Floats,
    labels: Index,
    rng: np.random.Generator,
    budget: Budget,
    space: Space,
    guided: bool = True,
) -> tuple[NDArray[np.float32], Floats]:
    """Images [n, b, ...] whose update points where each target [n,P] points, and 1 - cosine of each [n].

    labels: [n, b]. guided False leaves the gradient out and keeps the prior: a null of the same budget.
    The best restart is the one of least gap, since an attacker has no truth to choose by.
    """
    torch, n, r = replay.torch, len(targets), budget.restarts
    aim = torch.from_numpy(np.tile(targets, (r, 1)).astype(np.float32))
    aim = aim / aim.norm(dim=1, keepdim=True).clamp_min(1e-12)
    y = torch.from_numpy(np.tile(labels, (r, 1)))
    start = rng.normal(0, 0.5, (r * n, labels.shape[1], *space.shape)).astype(np.float32)
    z = torch.from_numpy(start).requires_grad_(True)
    optimiser = torch.optim.Adam([z], lr=budget.step)
    turns = [budget.iterations * k // 8 for k in (3, 5, 7)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, turns, 0.3)
    for _ in range(budget.iterations):
        loss = budget.smooth * _roughness(torch, z)
        if guided:
            loss = loss + _gap(replay, space.fed(space.image(z)), y, aim)
        (gradient,) = torch.autograd.grad(loss.sum(), z)
        z.grad = gradient.sign()
        optimiser.step()
        schedule.step()
    image = space.image(z.detach())
    left = _gap(replay, space.fed(image), y, aim).detach().numpy().reshape(r, n)
    best = left.argmin(axis=0)
    shaped = image.numpy().reshape(r, n, labels.shape[1], *space.shape)
    return shaped[best, np.arange(n)], left[best, np.arange(n)].astype(np.float64)


def by_length(
    replay: Replay,
    targets: Floats,
    labels: Index,
    rng: np.random.Generator,
    budget: Budget,
    space: Space,
) -> tuple[NDArray[np.float32], Floats]:
    """DLG: images [n, b, ...] of least squared distance to the target, and that distance as a share [n]."""
    torch, n, r = replay.torch, len(targets), budget.restarts
    aim = torch.from_numpy(np.tile(targets, (r, 1)).astype(np.float32))
    power = aim.square().sum(1).clamp_min(1e-20)
    y = torch.from_numpy(np.tile(labels, (r, 1)))
    start = rng.normal(0, 0.5, (r * n, labels.shape[1], *space.shape)).astype(np.float32)
    z = torch.from_numpy(start).requires_grad_(True)
    search = torch.optim.LBFGS(
        [z], max_iter=budget.iterations, history_size=20, line_search_fn="strong_wolfe"
    )

    def each(point: Any) -> Any:
        image = space.mean + space.spread * point  # no clamp: L-BFGS wants a smooth function
        return (replay.update(space.fed(image), y, graph=True) - aim).square().sum(1) / power

    def closure() -> Any:
        search.zero_grad()
        loss = each(z).sum()
        (z.grad,) = torch.autograd.grad(loss, z)
        return loss

    search.step(closure)
    left = each(z).detach().numpy().reshape(r, n)
    best = left.argmin(axis=0)
    shaped = space.image(z.detach()).numpy().reshape(r, n, labels.shape[1], *space.shape)
    return shaped[best, np.arange(n)], left[best, np.arange(n)].astype(np.float64)


def nulls(space: Space, public: Public) -> dict[str, Floats]:
    """Guesses that read no frame: no motion, the mean outside clip, the mean of each class."""
    data = space.outside.astype(np.float64)
    found = {"no motion": np.zeros_like(data[:1]), "mean of outside clips": data.mean(0, keepdims=True)}
    for k, name in enumerate(public.classes):
        if (public.proxy_y == k).any():
            found[f"mean of {name}"] = data[public.proxy_y == k].mean(0, keepdims=True)
    return found
