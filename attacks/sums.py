"""Rounds of `exact-ridge` to attack: clients with few clips, its sums recorded as a scheme's real frames.

Guarantees: the vectors, grids and sessions are those of `merveil.fl.exact`, one transcript a sum, and what an
attack gets is the view of its declared coalition of each. Draws that show one class only are drawn anew, as
they train nothing. Persons outside the federation are the attacker's public data, as in `attacks.scenario`.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from merveil.attacks.base import Adversary, Public
from merveil.attacks.scenario import Case, Setting, Task, Truth, check_room, deal, outside_persons
from merveil.fl.clients import Client
from merveil.fl.driver import Run
from merveil.fl.exact import MODEL, ExactFederation
from merveil.fl.options import resolve
from merveil.mer.errors import InputError

if TYPE_CHECKING:
    from merveil.mer.data.archive import Archive

Index = NDArray[np.int64]
DRAWS = 100  # of clients, until two classes are among their clips


def record_sums(task: Task, scheme: str, setting: Setting, adversary: Adversary, seed: int) -> list[Case]:
    """Record the setting's trainings under a scheme; the view of a case is a tuple of one View a sum.

    InputError where the archive is too small for the setting, or its images are not what exact-ridge reads.
    """
    archive = setting.on(task).archive
    check_room(archive, setting)
    outside = outside_persons(archive)
    federation = ExactFederation(archive, resolve({"model": MODEL, "scheme": scheme}))
    found = []
    for number in range(setting.rounds):
        held, challenge, owners = _drawn(archive, setting, outside, [seed, number])
        clients = tuple(Client(f"client-{i}", rows) for i, rows in held.items())
        transcripts = federation.recorded(Run(f"attack {number}", clients), setting.sums)
        views = tuple(transcript.view(adversary.corrupted) for transcript in transcripts)
        truth = Truth(
            archive=archive,
            held=held,
            counts={c: np.bincount(archive.y[r], minlength=len(archive.classes)) for c, r in held.items()},
            members=owners > 0,
            owners=owners,
            challenge=challenge,
            weights=dict.fromkeys(held, setting.clips),
        )
        public = _public(archive, scheme, setting, outside, challenge, federation.clips.names)
        found.append(Case(views, public, truth))
    return found


def _drawn(
    archive: "Archive", setting: Setting, outside: NDArray[np.bool_], seed: list[int]
) -> tuple[dict[int, Index], Index, Index]:
    """The first draw whose clients hold two classes or more between them."""
    for attempt in range(DRAWS):
        held, challenge, owners = deal(archive, setting, outside, np.random.default_rng([*seed, attempt]))
        if len(np.unique(archive.y[np.concatenate(list(held.values()))])) > 1:
            return held, challenge, owners
    raise InputError(f"{DRAWS} draws of {setting.cohort} clients show one class only: exact-ridge wants two")


def _public(
    archive: "Archive",
    scheme: str,
    setting: Setting,
    outside: NDArray[np.bool_],
    challenge: Index,
    sites: tuple[str, ...],
) -> Public:
    """What everybody knows: a ridge has neither a start model nor a rate, so these are empty."""
    height, width, channels = archive.x.shape[1:]
    return Public(
        scheme=scheme,
        model=MODEL,
        shape=(height, width, channels),
        classes=archive.classes,
        start=np.zeros(0, np.float32),
        lr=0.0,
        steps=0,
        clip=0.0,
        bits=0,
        max_weight=1,
        cohort=setting.cohort,
        clips=setting.clips,
        class_weight=np.ones(len(archive.classes)),  # the second sum says the real ones
        proxy_x=archive.x[outside],
        proxy_y=archive.y[outside],
        challenge_x=archive.x[challenge],
        challenge_y=archive.y[challenge],
        sites=sites,
        challenge_site=np.asarray(archive.site)[challenge],
    )
