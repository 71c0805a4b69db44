"""A23-seer: a start model trained with a secret decoder, so that any sum's decoded gradient is one clip.

The server reads the published sum of 64 clips, takes the first layer's gradient along its secret direction
(`attacks.seer`), and divides by the bias's. A round is lost where that picture is nearer to a clip of the sum
than to any other candidate, with a correlation of .9 or more; no two clips of the candidates are so alike.
Clips of the federation were not used in preparing the model. Nulls: the mean clip, another outside clip, and
the same decoder on the sum of the honest model that the server began with. Source: Garov et al., ICLR 2024.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from merveil.attacks import reconstruction
from merveil.attacks.base import CRAFTER, Attack, Finding, Floats, Public, Rule
from merveil.attacks.findings import proportion
from merveil.attacks.inversion import Space
from merveil.attacks.reading import honest_sum
from merveil.attacks.replay import Replay, scaled

# Correlation from which on a picture counts as the clip; as the rule, fixed after first trials.
LIKE = 0.9
CHECKED = 8  # rounds in which the members' own view is computed


def decode(vector: Floats, replay: Replay, direction: Floats) -> Floats:
    """The picture [inputs] in a mean of updates [P]: the gradient along the direction, over the bias's."""
    weight, bias, shape = replay.hidden_layer()
    mass = float(direction @ vector[bias])
    return np.asarray(direction @ vector[weight].reshape(shape) / (mass if mass else 1.0))


def infer(view: Any, public: Public, rng: np.random.Generator) -> dict[str, Any]:
    """{"image": [h, w, c] in the network's block means, "nulls": name -> image} and what the scorer asks."""
    replay = Replay(public)
    space = Space(replay)
    image = decode(honest_sum(view, public), replay, public.secret.direction).reshape(space.shape)
    nulls = {"mean": space.outside.mean(0), "other": space.outside[rng.integers(len(space.outside))]}
    return {"image": image, "nulls": nulls, **_asked(replay, space)}


def _asked(replay: Replay, space: Space) -> dict[str, Any]:
    """What the scorer asks with clips of its own: read, again, seen; and what is known of the model."""
    public, secret = replay.public, replay.public.secret
    before = Replay(replace(public, start=secret.honest))

    def again(x: Any, y: Any) -> Floats:
        """The same decoder where clients with clips x [M,B,h,w,c], y [M,B] train the honest model."""
        images = scaled(x.reshape(-1, *public.shape)).reshape(x.shape)
        found = before.update(replay.torch.from_numpy(images), replay.torch.from_numpy(y))
        mean = found.detach().double().mean(0).numpy()
        return decode(mean, before, secret.direction).reshape(space.shape)

    def seen(x: Any, y: Any) -> tuple[float, float]:
        """How far one of clips x [n,h,w,c], y [n] stands out: under this model and under the honest one."""
        from merveil.attacks.seer import snr

        ready, labels = (replay.torch.from_numpy(v) for v in (replay.net.prepare(x), y))
        return snr(replay.net, public.start, ready, labels), snr(replay.net, secret.honest, ready, labels)

    return {
        "again": again, "seen": seen, "read": lambda x: space.truth(replay, x), "peak": space.peak,
        "refused": secret.refused, "model": public.start.tobytes(),
    }  # fmt: skip


def _nearest(image: Any, gallery: Floats, inside: Any) -> tuple[int, float, bool]:
    """Nearest candidate, its correlation, and whether that is a clip of the sum with .9 or more."""
    match = reconstruction.ncc_matrix(image[None], gallery)[0]
    at = int(match.argmax())
    return at, float(match[at]), bool(inside[at] and match[at] >= LIKE)


def score(guesses: Any, truths: Any, rng: np.random.Generator) -> Finding:
    """Share of rounds in which the sum gave one of its clips away; chance is the best null's share."""
    rows: list[tuple[int, float, bool]] = []
    rank, psnr, shown, nulls = 0, [], set(), {"mean": 0, "other": 0, "honest": 0}
    margins: list[tuple[float, float]] = []
    for number, (guess, truth) in enumerate(zip(guesses, truths)):
        archive, held = truth.archive, np.stack(list(truth.held.values()))
        gallery, inside = guess["read"](archive.x[truth.challenge]), truth.members
        at, like, hit = _nearest(guess["image"], gallery, inside)
        rows.append((at, like, hit))
        rank += bool(inside[at])
        error = reconstruction.psnr(guess["image"][None], gallery[at : at + 1], guess["peak"])
        psnr.append(min(float(error[0]), 99.0))
        if hit:
            shown.add(int(truth.challenge[at]))
        tried = {**guess["nulls"], "honest": guess["again"](archive.x[held], archive.y[held])}
        for name, image in tried.items():
            nulls[name] += _nearest(image, gallery, inside)[2]
        if number < CHECKED:
            margins.append(guess["seen"](archive.x[held.ravel()], archive.y[held.ravel()]))
    n, hits = len(rows), sum(hit for _, _, hit in rows)
    models = {g["model"]: g["refused"] for g in guesses}
    chance = max(nulls.values()) / n
    return proportion(
        hits,
        n,
        "share of rounds whose sum of 64 clips gave a clip, correlation .9 or more, first of 128",
        "rounds",
        details={
            "clips_shown": float(len(shown)),
            "nearest_in_the_sum": rank / n,
            "correlation_median": float(np.median([like for _, like, _ in rows])),
            "psnr_db_median": float(np.median(psnr)),
            **{f"null_{name}": count / n for name, count in nulls.items()},
            "stands_out": float(np.median([m[0] for m in margins])),
            "stands_out_honest": float(np.median([m[1] for m in margins])),
            "models": float(len(models)),
            "gate_refused_first": float(np.mean([r[0] for r in models.values()])),
            "gate_refused_next": float(np.mean([r[1] for r in models.values()])),
        },
        chance=chance,
    )


ATTACKS = (
    Attack(
        id="A23-seer",
        title="a start model trained with a secret decoder, read off the sum",
        plain_words="Can a server train a model that looks honest, and see a participant's clip in the sum?",
        adversary=CRAFTER,
        setting="seer",
        infer=infer,
        score=score,
        rule=Rule(success=0.25, margin=0.01),
        source="Garov et al., ICLR 2024.",
        on_sum=True,
    ),
)
