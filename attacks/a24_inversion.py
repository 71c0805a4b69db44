"""A24: rebuild a clip from one client's update: match its gradient, prefer smooth images.

Cosine distance between the replayed and the seen update plus total variation, minimised by sign-Adam with a
decaying step, several restarts at once for all clients; the best restart is the one with the smallest attack
loss, since an attacker has no truth to choose by. The label is read off the last bias first.
Source: Geiping et al., NeurIPS 2020 (arXiv 2003.14053).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.attacks import reconstruction, stats
from merveil.attacks.base import CURIOUS_SERVER, Attack, Finding, Floats, Public, Rule
from merveil.attacks.reading import uploads
from merveil.attacks.replay import Replay, scaled

RANGE = 255.0


@dataclass(frozen=True)
class Budget:
    """Fixed beforehand and disclosed in the report: iterations, restarts, first step, smoothness weight."""

    iterations: int = 150
    restarts: int = 1
    step: float = 0.25  # in units of the outside data's standard deviation
    smooth: float = 0.04


QUICK = Budget()


def one_clip_label(vector: Floats, replay: Replay) -> int:
    """The class of a single clip: the one entry of the last bias that gradient descent raises (iDLG)."""
    return int(np.argmax(vector[replay.slice_of("bias")]))


class Prior:
    """Outside data as the image scale: mean and standard deviation per channel, on the 0-255 scale."""

    def __init__(self, public: Public, torch: Any) -> None:
        images = scaled(public.proxy_x)
        self.mean = torch.from_numpy(images.mean(axis=(0, 1, 2), keepdims=True)[0])
        self.spread = torch.from_numpy(images.std(axis=(0, 1, 2), keepdims=True)[0])

    def image(self, z: Any) -> Any:
        """Free variables [..., h, w, c] to images, held inside 0-255."""
        return (self.mean + self.spread * z).clamp(0.0, RANGE)


def _roughness(torch: Any, z: Any) -> Any:
    """Total variation per image [N], mean absolute difference of neighbours."""
    down = (z[:, 1:] - z[:, :-1]).abs().mean((1, 2, 3))
    return down + (z[:, :, 1:] - z[:, :, :-1]).abs().mean((1, 2, 3))


def invert(
    replay: Replay, targets: Floats, labels: NDArray[np.int64], rng: np.random.Generator, budget: Budget
) -> tuple[NDArray[np.float32], Floats]:
    """Images [n,h,w,c] whose update points where each target [n,P] points, and 1 - cosine of each [n]."""
    torch, n, r = replay.torch, len(targets), budget.restarts
    prior = Prior(replay.public, torch)
    aim = torch.from_numpy(np.tile(targets, (r, 1)).astype(np.float32))
    aim = aim / aim.norm(dim=1, keepdim=True).clamp_min(1e-12)
    y = torch.from_numpy(np.tile(labels, r))[:, None]
    start = rng.normal(0, 0.5, (r * n, *replay.public.shape)).astype(np.float32)
    z = torch.from_numpy(start).requires_grad_(True)
    optimiser = torch.optim.Adam([z], lr=budget.step)
    turns = [budget.iterations * k // 8 for k in (3, 5, 7)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, turns, 0.3)
    for _ in range(budget.iterations):
        gap = _gap(replay, prior.image(z), y, aim)
        loss = gap + budget.smooth * _roughness(torch, z)
        (gradient,) = torch.autograd.grad(loss.sum(), z)
        z.grad = gradient.sign()
        optimiser.step()
        schedule.step()
    image = prior.image(z.detach())
    left = _gap(replay, image, y, aim).detach().numpy().reshape(r, n)
    best = left.argmin(axis=0)
    shaped = image.numpy().reshape(r, n, *replay.public.shape)
    return shaped[best, np.arange(n)], left[best, np.arange(n)].astype(np.float64)


def _gap(replay: Replay, image: Any, y: Any, aim: Any) -> Any:
    """1 - cosine between the update of each image alone and its target, [N]."""
    update = replay.update(image[:, None], y, graph=True)
    return 1.0 - (update * aim).sum(1) / update.norm(dim=1).clamp_min(1e-12)


def infer(view: Any, public: Public, rng: np.random.Generator) -> dict[str, Any]:
    """One rebuilt clip per client: clients, images [n,h,w,c], labels [n], gap [n], and the blind guesses."""
    replay = Replay(public)
    seen = uploads(view, public)
    clients = sorted(seen)
    targets = np.stack([seen[c] for c in clients])
    labels = np.array([one_clip_label(t, replay) for t in targets], dtype=np.int64)
    images, gap = invert(replay, targets, labels, rng, QUICK)
    return {"clients": clients, "images": images, "labels": labels, "gap": gap, "null": nulls(public)}


def nulls(public: Public) -> dict[str, Floats]:
    """Guesses that read no frame: no motion, the mean clip of outside people."""
    images = scaled(public.proxy_x).astype(np.float64)
    return {"no motion": np.zeros_like(images[:1]), "mean of outside clips": images.mean(0, keepdims=True)}


def score(guesses: Any, truths: Any, rng: np.random.Generator) -> Finding:
    """Rank-1 identification of the true clip among all clips of the archive, by the rebuilt image alone.

    details: mean NCC, its gain over the best null with interval, PSNR, SSIM, relative endpoint error.
    """
    images, index = [], []
    for guess, truth in zip(guesses, truths):
        images.append(guess["images"])
        index += [int(truth.held[c][0]) for c in guess["clients"]]
    archive, rows = truths[0].archive, np.array(index)
    rebuilt, gallery = np.concatenate(images).astype(np.float64), scaled(archive.x).astype(np.float64)
    place = reconstruction.ranks(rebuilt, gallery, rows)
    hits, n = int((place == 1).sum()), len(rows)
    ci, strict = stats.both_intervals(stats.clopper_pearson, hits, n)
    return Finding(
        score=hits / n,
        chance=1.0 / archive.n,
        ci95=ci,
        strict=strict,
        n=n,
        unit="clients",
        statistic=f"share of clips picked out of {archive.n} by the rebuilt image (rank 1)",
        mde=stats.proportion_detectable(n, 1.0 / archive.n, alpha=stats.STRICT_ALPHA),
        details=quality(rebuilt, gallery[rows], guesses[0]["null"], archive.meta.channels, rng)
        | {"mean_reciprocal_rank": float((1.0 / place).mean())},
    )


def quality(
    rebuilt: Floats,
    truth: Floats,
    blind: dict[str, Floats],
    channels: tuple[str, ...],
    rng: np.random.Generator,
) -> dict[str, float]:
    """Image measures beside nulls: the mean clip, no motion, another client's image."""
    shuffled = {"another client's image": np.roll(rebuilt, 1, axis=0)}
    gain, null = reconstruction.null_gain(rebuilt, truth, blind | shuffled)
    low, high = stats.bootstrap_mean(gain, rng)
    peak = reconstruction.psnr(rebuilt, truth, RANGE)
    found = {
        "ncc": float(reconstruction.ncc(rebuilt, truth).mean()),
        "ncc_best_null": max(null.values()),
        "ncc_gain": float(gain.mean()),
        "ncc_gain_low": float(low),
        "ncc_gain_high": float(high),
        "psnr_db": float(np.minimum(peak, 99.0).mean()),
        "ssim": float(reconstruction.ssim(rebuilt, truth, RANGE).mean()),
    }
    if {"u", "v"} <= set(channels):
        flow = (channels.index("v"), channels.index("u"))
        found["relative_endpoint_error"] = float(
            np.nanmean(reconstruction.relative_endpoint_error(rebuilt, truth, flow))
        )
    return found


ATTACKS = (
    Attack(
        id="A24",
        title="passive gradient inversion of one client's frames",
        plain_words="Can the server rebuild a participant's facial movement from one message of the device?",
        adversary=CURIOUS_SERVER,
        setting="one-clip",
        infer=infer,
        score=score,
        rule=Rule(success=0.8, margin=0.12),
        source="Geiping et al., NeurIPS 2020.",
    ),
)
