"""People for the attacks on learning: features of drawn faces from their exact flow, no video rendered.

Membership of people and of clips needs more people than the 24 of the synthetic videos, and their pixels
add nothing to it: a clip here is the displacement field of its action units and a little head motion at the
face's own landmarks (the generator of `merveil.mer.data`), plus smooth measurement error. 480 clips take
about a second. It says how attacks behave; it says nothing about people.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from merveil.mer.data.archive import Archive

SIDE, LOW, CELL = 96, 20, 2  # the face lies within [LOW, LOW + 56) of a 96 x 96 picture; 2x2 blocks -> 28
ERROR, MODES = 0.5, 14  # error field: share of a clip's root mean square motion, cosine modes a side
ODD = 0.1  # share of clips whose label is drawn anew: annotators disagree
OWN = 0.3  # chance that a person shows one of the movements for another emotion than most people do
SKEW = 2.0  # Dirichlet weight of a person's class shares: small, so many people lack a class
MANNER = 0.6  # the person's own way of moving beside the expression, as a share of the clip's motion


@lru_cache(maxsize=4)
def population(persons: int = 60, clips: int = 8, seed: int = 0) -> "Archive":
    """An archive float32 [persons * clips, 28, 28, 3] of strain, v, u; the same for the same arguments."""
    from merveil.mer.data.archive import make_archive
    from merveil.mer.data.synthetic import names

    made = [_person(seed, p, clips) for p in range(persons)]
    rows = [(p, c) for p in range(persons) for c in range(clips)]
    who = [names(p, c) for p, c in rows]
    return make_archive(
        x=np.concatenate([x for x, _ in made]),
        y=np.concatenate([y for _, y in made]),
        dataset=np.array(["drawn"] * len(rows)),
        subject=np.array([w[0] for w in who]),
        clip=np.array([w[1] for w in who]),
        site=np.array([w[2] for w in who]),
    )


def _person(seed: int, number: int, clips: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """All clips of one person, with labels: own landmarks, strength, side, twitch, and own habits."""
    from merveil.mer.data.drawn_face import draw_identity, landmarks
    from merveil.mer.data.motion import expression, rigid
    from merveil.mer.data.synthetic import NUISANCE, RECIPES

    rng = np.random.default_rng([seed, 21, number])
    marks = landmarks(draw_identity(rng), SIDE)
    strength, side = float(rng.uniform(0.65, 1.4)), float(rng.normal(0, 0.25))
    twitch, share = NUISANCE[int(rng.integers(len(NUISANCE)))], float(rng.uniform(0.2, 0.9))
    habit = {
        (kind, i): int(rng.integers(3)) if rng.random() < OWN else kind
        for kind, recipes in RECIPES.items()
        for i in range(len(recipes))
    }
    manner = _smooth(4, rng)
    images, told = [], []
    shares = rng.dirichlet(SKEW * np.array([0.5, 0.25, 0.25]))
    for kind in rng.choice(3, clips, p=shares).tolist():
        which = int(rng.integers(len(RECIPES[kind])))
        peak = 0.012 * marks.eye_distance * strength * float(np.exp(rng.normal(0, 0.5)))
        units = {
            k: peak * weight * float(rng.uniform(0.7, 1.3)) for k, weight in RECIPES[kind][which].items()
        }
        units[twitch] = units.get(twitch, 0.0) + peak * share
        flow = expression((SIDE, SIDE), marks, units, side + float(rng.normal(0, 0.18)))
        pose = (*rng.normal(0, 0.1 * peak, 2), *rng.normal(0, 0.1 * peak / SIDE, 2))
        images.append(_feature(flow + rigid((SIDE, SIDE), (SIDE / 2, SIDE / 2), pose), manner, rng))
        told.append(int(rng.integers(3)) if rng.random() < ODD else habit[kind, which])
    return np.stack(images), np.array(told, dtype=np.int64)


def _feature(
    flow: NDArray[np.float32], manner: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Flow [96,96,2] (u, v) with the person's manner and smooth error -> [28,28,3] of strain, v, u."""
    from merveil.mer.features.strain import optical_strain

    inside = flow[LOW : LOW + 28 * CELL, LOW : LOW + 28 * CELL]
    small = inside.reshape(28, CELL, 28, CELL, 2).mean((1, 3)) / CELL
    power = float(np.sqrt((small**2).mean()))
    seen = (small + power * (MANNER * manner + ERROR * _smooth(MODES, rng))).astype(np.float32)
    return np.stack([optical_strain(seen), seen[..., 1], seen[..., 0]], axis=-1).astype(np.float32)


def _smooth(modes: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A random field [28,28,2] of cosine modes, root mean square one."""
    wave = np.cos(np.outer(np.arange(28) + 0.5, np.arange(modes)) * np.pi / 28)
    field = np.einsum("ha,wb,abc->hwc", wave, wave, rng.normal(size=(modes, modes, 2)))
    return np.asarray(field / np.sqrt((field**2).mean()))
