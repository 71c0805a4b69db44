"""A24: rebuild clips from one client's update, or from the sum.

A24: one clip, one step: match the direction of the update, prefer smooth images (cosine and total variation).
A24-exact: the same where the first layer is fully connected: a division. A24-length: DLG, squared distance,
L-BFGS. A24-steps: several local steps, all of them replayed. A24-batch: several clips at once, matched by
assignment, nulls through the same matching. A24-sum: the published sum, as one larger batch.
Labels are read off the last bias first. Sources: Geiping et al., NeurIPS 2020 (arXiv 2003.14053); Zhu et al.,
NeurIPS 2019; Phong et al., TIFS 2018; Dimitrov et al., TMLR 2022 (local steps).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.attacks import inversion, reconstruction, stats
from merveil.attacks.a26_labels import class_means, likeliest
from merveil.attacks.base import COALITION, CURIOUS_SERVER, Attack, Finding, Floats, Public, Rule
from merveil.attacks.findings import proportion
from merveil.attacks.inversion import Budget, Space
from merveil.attacks.reading import honest_sum, uploads
from merveil.attacks.replay import Replay

QUICK = Budget()
STEPS = Budget(iterations=100)
LENGTH = Budget(iterations=60)


def one_clip_label(vector: Floats, replay: Replay) -> int:
    """The class of a single clip: the one entry of the last bias that gradient descent raises (iDLG)."""
    return int(np.argmax(vector[replay.slice_of("bias")]))


def batch_labels(vector: Floats, replay: Replay, clips: int) -> NDArray[np.int64]:
    """Labels [clips] of a batch, sorted, from the last bias (A26); a single clip's by its sign."""
    if clips == 1:
        return np.array([one_clip_label(vector, replay)])
    public = replay.public
    gradient = vector[replay.slice_of("bias")] / -(public.lr * public.steps)
    means = class_means(replay, public)
    return np.repeat(np.arange(len(public.classes)), likeliest(gradient, clips, means, public.class_weight))


def invert(
    replay: Replay, targets: Floats, labels: NDArray[np.int64], rng: np.random.Generator, budget: Budget
) -> tuple[NDArray[np.float32], Floats]:
    """`inversion.by_direction` for clients of one clip: images [n,h,w,c] and 1 - cosine of each [n]."""
    images, gap = inversion.by_direction(replay, targets, labels[:, None], rng, budget, Space(replay))
    return images[:, 0], gap


def _guess(
    replay: Replay, clients: Sequence[int], images: Any, labels: Any, gap: Any, space: Space
) -> dict[str, Any]:
    """What score functions read: images [n, b, ...] of clients, in a space that `read` puts true clips in."""
    return {
        "clients": list(clients), "images": images[:, 0] if images.shape[1] == 1 else images,
        "labels": labels[:, 0] if labels.shape[1] == 1 else labels, "gap": gap, "peak": space.peak,
        "null": inversion.nulls(space, replay.public), "read": lambda x: space.truth(replay, x),
    }  # fmt: skip


def _rebuild(
    view: Any, public: Public, rng: np.random.Generator, search: Any, budget: Budget
) -> dict[str, Any]:
    """Every client's clips from its frames, by one of the searches."""
    replay = Replay(public)
    space, seen = Space(replay), uploads(view, public)
    clients = sorted(seen)
    targets = np.stack([seen[c] for c in clients])
    labels = np.stack([batch_labels(t, replay, public.clips) for t in targets]).astype(np.int64)
    images, gap = search(replay, targets, labels, rng, budget, space)
    return _guess(replay, clients, images, labels, gap, space)


def infer(view: Any, public: Public, rng: np.random.Generator) -> dict[str, Any]:
    """Clips of each client by direction: clients, images [n,(b),...], labels, gap, and the blind guesses."""
    return _rebuild(view, public, rng, inversion.by_direction, QUICK)


def infer_steps(view: Any, public: Public, rng: np.random.Generator) -> dict[str, Any]:
    """The same, with all local steps replayed."""
    return _rebuild(view, public, rng, inversion.by_direction, STEPS)


def infer_length(view: Any, public: Public, rng: np.random.Generator) -> dict[str, Any]:
    """The same by squared distance and L-BFGS."""
    return _rebuild(view, public, rng, inversion.by_length, LENGTH)


def infer_exact(view: Any, public: Public, rng: np.random.Generator) -> dict[str, Any]:
    """One clip of each client by division."""
    replay = Replay(public)
    space, seen = Space(replay), uploads(view, public)
    clients = sorted(seen)
    targets = np.stack([seen[c] for c in clients])
    labels = np.array([[one_clip_label(t, replay)] for t in targets])
    images = inversion.exact(replay, targets, space)[:, None]
    return _guess(replay, clients, images, labels, np.zeros(len(clients)), space)


def infer_sum(view: Any, public: Public, rng: np.random.Generator) -> dict[str, Any]:
    """All clips of the cohort from the published mean, as one batch, and what the prior alone draws."""
    replay = Replay(public)
    space, vector = Space(replay), honest_sum(view, public)
    labels = batch_labels(vector, replay, public.clips * public.cohort)[None].astype(np.int64)
    images, gap = inversion.by_direction(replay, vector[None], labels, rng, QUICK, space)
    blank, _ = inversion.by_direction(replay, vector[None], labels, rng, QUICK, space, guided=False)
    return _guess(replay, [0], images, labels, gap, space) | {"prior": blank[0]}


def score(guesses: Any, truths: Any, rng: np.random.Generator) -> Finding:
    """Rank-1 identification of the true clip among all clips of the archive, by the rebuilt image alone.

    details: mean NCC, its gain over the best null with interval, PSNR, SSIM, relative endpoint error, labels.
    """
    images, index, named = [], [], []
    archive = truths[0].archive
    for guess, truth in zip(guesses, truths):
        at = [i for i, c in enumerate(guess["clients"]) if c in truth.held]
        rows = [int(truth.held[guess["clients"][i]][0]) for i in at]
        images.append(guess["images"][at])
        index += rows
        named += list(guess["labels"][at] == archive.y[rows])
    rows = np.array(index)
    rebuilt, gallery = np.concatenate(images).astype(np.float64), guesses[0]["read"](archive.x)
    place = reconstruction.ranks(rebuilt, gallery, rows)
    hits, n = int((place == 1).sum()), len(rows)
    details = quality(
        rebuilt, gallery[rows], guesses[0]["null"], archive.meta.channels, rng, guesses[0]["peak"]
    )
    return proportion(
        hits,
        n,
        f"share of clips picked out of {archive.n} by the rebuilt image (rank 1)",
        "clients",
        details=details
        | {"mean_reciprocal_rank": float((1.0 / place).mean()), "labels_right": float(np.mean(named))},
        chance=1.0 / archive.n,
    )


def score_batch(guesses: Any, truths: Any, rng: np.random.Generator) -> Finding:
    """Mean gain in NCC over the best null, after the best assignment of rebuilt to true clips.

    Nulls: the mean clips, as many copies; the clips rebuilt for another client; the prior alone, where tried.
    Clients (or rounds, for a sum) are the units.
    """
    archive, gains, own, best_null = truths[0].archive, [], [], []
    whole = [
        (guess, i, _rows(truth, client))
        for guess, truth in zip(guesses, truths)
        for i, client in enumerate(guess["clients"])
        if client == 0 or client in truth.held
    ]
    for at, (guess, i, rows) in enumerate(whole):
        true = guess["read"](archive.x[rows])
        tried = {k: np.broadcast_to(v, true.shape) for k, v in guess["null"].items()}
        other, j, _ = whole[at - 1]
        tried["another's clips"] = other["images"][j]
        if "prior" in guess:
            tried["prior alone"] = guess["prior"]
        value = _matched(guess["images"][i], true)
        blind = max(_matched(v, true) for v in tried.values())
        gains.append(value - blind)
        own.append(value)
        best_null.append(blind)
    values = np.array(gains)
    ci, strict = (stats.bootstrap_mean(values, rng, c) for c in stats.CONFIDENCE)
    return Finding(
        score=float(values.mean()),
        chance=0.0,
        ci95=ci,
        strict=strict,
        n=len(values),
        unit="rounds" if guesses[0]["clients"] == [0] else "clients",
        statistic="gain in correlation of rebuilt clips over the best null, both matched",
        mde=stats.mean_detectable(values, 0.0),
        details={"ncc": float(np.mean(own)), "ncc_best_null": float(np.mean(best_null))},
    )


def _rows(truth: Any, client: int) -> NDArray[np.int64]:
    return np.concatenate(list(truth.held.values())) if client == 0 else truth.held[client]


def _matched(guess: Floats, truth: Floats) -> float:
    """Mean NCC after the best assignment."""
    chosen = np.asarray(guess, np.float64)[reconstruction.match(guess, truth)]
    return float(reconstruction.ncc(chosen, truth).mean())


def quality(
    rebuilt: Floats,
    truth: Floats,
    blind: dict[str, Floats],
    channels: tuple[str, ...],
    rng: np.random.Generator,
    peak: float = 255.0,
) -> dict[str, float]:
    """Image measures beside nulls: the mean clip, no motion, another client's image."""
    shuffled = {"another client's image": np.roll(rebuilt, 1, axis=0)}
    gain, null = reconstruction.null_gain(rebuilt, truth, blind | shuffled)
    low, high = stats.bootstrap_mean(gain, rng)
    clear = reconstruction.psnr(rebuilt, truth, peak)
    found = {
        "ncc": float(reconstruction.ncc(rebuilt, truth).mean()),
        "ncc_best_null": max(null.values()),
        "ncc_gain": float(gain.mean()),
        "ncc_gain_low": float(low),
        "ncc_gain_high": float(high),
        "psnr_db": float(np.minimum(clear, 99.0).mean()),
        "ssim": float(reconstruction.ssim(rebuilt, truth, peak).mean()),
    }
    if {"u", "v"} <= set(channels):
        flow = (channels.index("v"), channels.index("u"))
        found["relative_endpoint_error"] = float(
            np.nanmean(reconstruction.relative_endpoint_error(rebuilt, truth, flow))
        )
    return found


def _one(name: str, title: str, setting: str, how: Any, rule: Rule, source: str) -> Attack:
    """An attack on one client's frames, scored by picking out the clip."""
    words = "Can the server rebuild a participant's facial movement from one message of the device?"
    return Attack(name, title, words, CURIOUS_SERVER, setting, how, score, rule, source)


PICKED = Rule(success=0.8, margin=0.12)
ATTACKS = (
    _one(
        "A24", "passive gradient inversion of one client's frames", "one-clip", infer, PICKED,
        "Geiping et al., NeurIPS 2020.",
    ),
    _one(
        "A24-exact", "one clip by division, where the first layer is fully connected", "one-clip-wide",
        infer_exact, PICKED, "Phong et al., TIFS 2018.",
    ),
    _one(
        "A24-length", "one clip by squared distance and L-BFGS (DLG)", "one-clip-wide", infer_length, PICKED,
        "Zhu et al., NeurIPS 2019.",
    ),
    _one(
        "A24-steps", "one clip from an update of several local steps", "one-clip-steps", infer_steps, PICKED,
        "Dimitrov et al., TMLR 2022.",
    ),
    replace(
        _one(
            "A24-pool", "one clip by division, the server with a quarter of the clients", "one-clip-pool",
            infer_exact, PICKED, "Phong et al., TIFS 2018.",
        ),
        adversary=COALITION,
    ),
    Attack(
        id="A24-batch",
        title="four clips at once from one client's frames",
        plain_words="Can the server rebuild the movements on a device that trains on several clips at once?",
        adversary=CURIOUS_SERVER,
        setting="four-clips",
        infer=infer,
        score=score_batch,
        rule=Rule(success=0.15, margin=0.05),
        source="Geiping et al., NeurIPS 2020, several images.",
    ),
    Attack(
        id="A24-sum",
        title="all clips of a small cohort from the published sum",
        plain_words="Can anyone rebuild participants' movements from the published sum of a small group?",
        adversary=CURIOUS_SERVER,
        setting="five-clips",
        infer=infer_sum,
        score=score_batch,
        rule=Rule(success=0.1, margin=0.05),
        source="The same attack: a sum is one larger batch.",
        on_sum=True,
    ),
)  # fmt: skip
