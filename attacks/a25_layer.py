"""A25 where a hidden layer is fully connected: exact membership by its row space, and unmixing a whole batch.

The layer's gradient is dW = sum over clips of d_k x_k^T. A25-span: the share of a candidate's input x that
lies in the row space of dW is one for every clip that took part while clips are fewer than units, and less
for others. A25-unmix: with ReLU units each d_k is zero where its clip leaves a unit silent; directions that
silence many rows at once are single clips, so the batch falls apart exactly. Both read a client's vector or
the sum. Sources: Petrov et al., NeurIPS 2024 (DAGER, span); Dimitrov et al., NeurIPS 2024 (SPEAR).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.attacks import stats
from merveil.attacks.a25_span import auc_finding
from merveil.attacks.base import CURIOUS_SERVER, Attack, Finding, Floats, Public, Rule
from merveil.attacks.reading import honest_sum, uploads
from merveil.attacks.replay import Replay

TRIES = 20_000  # subsets of rows that are tried for one batch at most, 100 for each choice of silent rows
SILENT = 3e-3  # of a direction's largest entry: below counts as zero
PLANE = 0.03  # least singular value but one of unit rows that fix a single direction
SINGLE = 1e-6  # of the largest singular value: rounding of single precision


def row_space(rows: Floats, step: float) -> Floats:
    """Orthonormal basis [r, d] of the directions above rounding; step: deviation of a rounded entry."""
    _, size, basis = np.linalg.svd(rows, full_matrices=False)
    floor = 2 * step * (np.sqrt(rows.shape[0]) + np.sqrt(rows.shape[1]))
    return np.asarray(basis[size > max(floor, SINGLE * float(size[0]))])


def grid(public: Public, clients: int) -> float:
    """Deviation that rounding to the grid leaves in each entry of a mean of so many clients."""
    return float(public.clip / (2 ** (public.bits - 1) - 1) / np.sqrt(12 * clients))


def infer_span(view: Any, public: Public, rng: np.random.Generator) -> dict[str, Any]:
    """Share [m] of each challenge record's layer input inside the row space of the published sum's layer."""
    replay = Replay(public)
    weight, _, shape = replay.hidden_layer()
    basis = row_space(honest_sum(view, public)[weight].reshape(shape), grid(public, public.cohort))
    x = replay.features(public.challenge_x)
    # Inputs of one layer share a large mean; what all have in common says nothing about who took part.
    centre = replay.features(public.proxy_x).mean(0)
    return {"scores": 1 - _left(x, basis, centre), "rank": len(basis)}


def _left(x: Floats, basis: Floats, centre: Floats) -> Floats:
    """Residual of x outside the basis over the size of x - centre, squared, [m]."""
    out = x - (x @ basis.T) @ basis
    return np.asarray((out**2).sum(1) / np.maximum(((x - centre) ** 2).sum(1), 1e-30))


def score_span(guesses: Any, truths: Any, rng: np.random.Generator) -> Finding:
    """Mean over rounds of the AUC: clips in the sum against clips that took no part."""
    areas = [stats.auc(g["scores"][t.members], g["scores"][~t.members]) for g, t in zip(guesses, truths)]
    what = "AUC of clips in the sum against clips of no client, by row space"
    return auc_finding(np.array(areas), "rounds", what, rng)


def unmix(weight: Floats, bias: Floats, last: Floats, clips: int, rng: np.random.Generator) -> Floats:
    """Layer inputs [<= clips, d] of the clips behind dW [m, d] and db [m]; as many as fell apart.

    With U the left factor of [dW | db], rank b, each clip's d_k is U q for some q; b - 1 of its silent rows
    fix q. Subsets of rows are drawn, and a direction is kept that silences more rows than it was made from
    and whose other rows are what one clip sends back through the last layer, last [K, m]: few classes make
    mixtures of clips silence rows too.
    """
    joint = np.concatenate([weight, bias[:, None]], axis=1)
    left, size, right = np.linalg.svd(joint, full_matrices=False)
    b = min(clips, int((size > SINGLE * size[0]).sum()))
    left, right = left[:, :b] * size[:b], right[:b]
    alive = np.linalg.norm(left, axis=1) > 1e-6 * np.linalg.norm(left, axis=1).max()
    live = left[alive]
    if b == 1:
        return right[:, :-1] / right[:, -1:]
    if len(live) < b:
        return np.empty((0, weight.shape[1]))
    rows = live / np.linalg.norm(live, axis=1, keepdims=True)
    tries = min(TRIES, 100 << b)
    subsets = np.argsort(rng.random((tries, len(rows))), axis=1)[:, : b - 1]
    directions = np.linalg.svd(rows[subsets])[2][:, -1]  # [tries, b], orthogonal to the subset's rows
    silent = np.abs(directions @ rows.T) < SILENT
    kept: list[Floats] = []
    for i in np.argsort(-silent.sum(1)):
        if silent[i].sum() <= b - 1 or len(kept) == b:
            break
        _, spread, basis = np.linalg.svd(rows[silent[i]])  # all its silent rows together fix it better
        # Rows that two clips leave silent together fix only the plane of the two: no clip is read off it.
        q = basis[-1]
        if (
            spread[b - 2] > PLANE
            and all(abs(q @ k) < 0.999 for k in kept)
            and _one_clip(live @ q, last[:, alive])
        ):
            kept.append(q)
    if len(kept) < b:
        return np.empty((0, weight.shape[1]))
    mixed = np.linalg.pinv(np.stack(kept, axis=1)) @ right
    usable = np.abs(mixed[:, -1]) > 1e-9
    return np.asarray(mixed[usable, :-1] / mixed[usable, -1:])


def _one_clip(sent: Floats, last: Floats) -> bool:
    """Whether the rows that are not silent are last^T g for one g [K]."""
    active = np.abs(sent) > SILENT * np.abs(sent).max()
    if active.sum() <= len(last):
        return False
    g = np.linalg.lstsq(last[:, active].T, sent[active], rcond=None)[0]
    left = sent[active] - last[:, active].T @ g
    return bool(np.linalg.norm(left) < 0.02 * np.linalg.norm(sent))


def _apart(vector: Floats, replay: Replay, clips: int, rng: np.random.Generator) -> Floats:
    weight, bias, shape = replay.hidden_layer()
    last = replay.public.start[replay.slice_of("last.weight")].reshape(-1, shape[0]).astype(np.float64)
    return unmix(vector[weight].reshape(shape), vector[bias], last, clips, rng)


def infer_unmix(view: Any, public: Public, rng: np.random.Generator) -> dict[str, Any]:
    """{"clients", "found": layer inputs of each client's clips, "read": what true clips give}."""
    replay, seen = Replay(public), uploads(view, public)
    found = {c: _apart(v, replay, public.clips, rng) for c, v in seen.items()}
    return {"found": found, "read": replay.features, "clips": public.clips}


def infer_unmix_sum(view: Any, public: Public, rng: np.random.Generator) -> dict[str, Any]:
    """The same of the published sum; key 0 stands for the cohort."""
    replay, clips = Replay(public), public.clips * public.cohort
    found = {0: _apart(honest_sum(view, public), replay, clips, rng)}
    return {"found": found, "read": replay.features, "clips": clips}


def score_unmix(guesses: Any, truths: Any, rng: np.random.Generator) -> Finding:
    """Share of clips whose layer input came out and points at that clip first among all of the archive.

    Chance: a vector for each clip, pointing anywhere. A clip counts once. details: how exact they are.
    """
    archive, right, near = truths[0].archive, [], []
    for guess, truth in zip(guesses, truths):
        gallery = guess["read"](archive.x)
        unit = gallery / np.maximum(np.linalg.norm(gallery, axis=1, keepdims=True), 1e-30)
        for client, vectors in guess["found"].items():
            rows = np.concatenate(list(truth.held.values())) if client == 0 else truth.held.get(client)
            if rows is None:
                continue
            cosine = _cosines(vectors, unit)
            named = set(cosine.argmax(1).tolist()) if len(vectors) else set()
            right.append(len(named & set(rows.tolist())) / len(rows))
            near += list(cosine[:, rows].max(0)) if len(vectors) else [0.0] * len(rows)
    values, chance = np.array(right), guesses[0]["clips"] / archive.n
    ci, strict = (stats.bounded_mean(values, rng, c) for c in stats.CONFIDENCE)
    return Finding(
        score=float(values.mean()),
        chance=chance,
        ci95=ci,
        strict=strict,
        n=len(values),
        unit="batches",
        statistic=f"share of a batch's clips picked out of {archive.n} by their unmixed layer inputs",
        mde=stats.mean_detectable(values, chance),
        details={
            "clips": float(guesses[0]["clips"]),
            "batches_apart": float(np.mean([r > 0 for r in right])),
            "cosine": float(np.mean(near)),
            "exact": float(np.mean(np.array(near) > 0.9999)),
        },
    )


def _cosines(vectors: Floats, unit: Floats) -> NDArray[np.float64]:
    length = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
    return np.asarray((vectors / length) @ unit.T)


ATTACKS = (
    Attack(
        id="A25-span",
        title="membership of a clip, from the row space of the published sum",
        plain_words="Holding a clip, does the published sum tell anyone for certain that it took part?",
        adversary=CURIOUS_SERVER,
        setting="wide-sum",
        infer=infer_span,
        score=score_span,
        rule=Rule(success=0.95, margin=0.05),
        source="Petrov et al., NeurIPS 2024.",
        on_sum=True,
    ),
    Attack(
        id="A25-unmix",
        title="six clips told apart in one client's frames",
        plain_words="Can the server take the clips on a device apart, though they were trained on together?",
        adversary=CURIOUS_SERVER,
        setting="relu-batch",
        infer=infer_unmix,
        score=score_unmix,
        rule=Rule(success=0.7, margin=0.2),
        source="Dimitrov et al., NeurIPS 2024 (SPEAR).",
    ),
    Attack(
        id="A25-unmix-sum",
        title="all clips of a small cohort told apart in the published sum",
        plain_words="Can anyone take the clips of a small group apart in the published sum?",
        adversary=CURIOUS_SERVER,
        setting="relu-sum",
        infer=infer_unmix_sum,
        score=score_unmix,
        rule=Rule(success=0.5, margin=0.1),
        source="The same: a sum is one larger batch.",
        on_sum=True,
    ),
)
