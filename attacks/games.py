"""Games against noise: a mechanism run with or without a canary by a hidden coin, or a sum with its noise.

Guarantee: an attack gets released outputs, what is public of the mechanism, and a simulator of it (everything
but the coins is public, so anyone may run it); whether the canary was in goes to the scorer alone. Outputs
come from the parts that training uses (`protocols.dp`, `fl.dp`), with noise of the operating system.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.attacks.reading import codes as read_codes
from merveil.fl.dp import PrivateAggregator
from merveil.fl.dp_ledger import Budget
from merveil.fl.privacy_sgd import cost, epsilon
from merveil.protocols.codec import Codes
from merveil.protocols.dp.clips import ClipStep, clip_step
from merveil.protocols.dp.discrete import Mechanism, plan
from merveil.protocols.registry import get

Floats = NDArray[np.float64]
Bits = NDArray[np.bool_]
Game = Callable[[int], tuple[Any, Any]]  # number -> (view, truth)

DELTA = 1e-2  # of the canary games: two worlds are told apart best well above the delta of a real claim
DIM = 24  # of the gradients: enough to read the scale of the noise off one step
SIZES = (2, 3, 5, 9, 4, 7, 10)  # clips at the client, the canary included
RUNS = 16_000  # observed, and as many of the attacker's own
COHORT = 9  # clients of a game with shares, and the values of its updates
VALUES = 1000


class Steps:
    """DP-SGD as it is run. `audits.broken.dp_noise` has the ways in which it can be wrong."""

    label = "DP-SGD"

    def run(self, step: ClipStep, gradients: Floats, runs: int, times: int) -> Floats:
        """What `times` steps on fixed gradients [clips, DIM] release, over and over: [runs, times, DIM]."""
        codes, found = self.codes(step, gradients), []
        for _ in range(times):
            drawn = self.sample(step, (runs, len(codes)))
            found.append(self.release(step, drawn.astype(np.int64) @ codes, drawn))
        return np.stack(found, axis=1)

    def codes(self, step: ClipStep, gradients: Floats) -> NDArray[np.int64]:
        return step.codes(gradients)

    def sample(self, step: ClipStep, shape: tuple[int, int]) -> Bits:
        return step.sample(shape)

    def release(self, step: ClipStep, sums: NDArray[np.int64], drawn: Bits) -> Floats:
        return step.release(sums)


@dataclass(frozen=True)
class StepGame:
    """One client's steps of DP-SGD. observed: outputs [RUNS, times, DIM]; the canary's bits are the scorer's.

    canary: its gradient, far over the clip. others: the gradients of the client's other clips. claim: epsilon
    at DELTA by the accountant.
    """

    steps: Steps
    step: ClipStep
    times: int
    canary: Floats
    others: Floats
    claim: float
    observed: Floats = field(repr=False)

    def simulate(self, inside: bool) -> Floats:
        """The attacker's own runs, with or without the canary."""
        gradients = np.concatenate([self.others, self.canary[None]]) if inside else self.others
        return self.steps.run(self.step, gradients, len(self.observed) // 2, self.times)


def step_game(steps: Steps, number: int, runs: int = RUNS) -> tuple[StepGame, tuple[Bits, float]]:
    """The game of this number, and for the scorer its bits [runs] (half of the runs) and its claim."""
    step, times = clip_step(DIM, 1.0, 1.0, 0.5, 4.0), 2
    canary = np.zeros(DIM)
    canary[-1] = 30.0
    others = np.zeros((SIZES[number % len(SIZES)] - 1, DIM))
    others[:, 0] = 1.0
    claim = epsilon([(cost(step), times)], DELTA, "rdp")
    blank = np.empty((runs, times, DIM))
    game = StepGame(steps, step, times, canary, others, claim, blank)
    bits = np.arange(runs) % 2 == 1
    for inside in (False, True):
        blank[bits == inside] = game.simulate(inside)
    return game, (bits, claim)


@dataclass(frozen=True)
class ShareGame:
    """Two rounds of distributed noise at the worst dropout and collusion that the scheme admits.

    seen: what is left of each round's sum when the server and its colluders have taken away all they know
    (inputs are zero, so it is noise), int64 [2, size]; under plain one client's upload, read off its frame.
    shares: how many honest shares are in it. target: the variance that the guarantee needs in it.
    """

    mechanism: Mechanism
    shares: int
    target: float
    seen: Codes = field(repr=False)


def share_game(
    scheme: str, change: Callable[[Mechanism], Mechanism] = lambda m: m, *, central: bool = False
) -> tuple[ShareGame, float]:
    """Two real rounds through the scheme's frames, and the target for the scorer."""
    params = get(scheme).params(COHORT, 1)
    kind = "gaussian" if central else "skellam"
    honest = plan(kind, VALUES, COHORT, params.honest, 1.0, 2.0, central=central)
    sums = PrivateAggregator(scheme, change(honest), Budget(None, "game", np.inf, 1e-5), record=True)
    away = 0 if scheme == "plain" else COHORT - params.threshold  # plain: each upload has its own noise
    drop = dict.fromkeys(range(COHORT - away, COHORT), get(scheme).phases[0].value)
    colluders = frozenset(range(1, params.corrupt + 1)) if away else frozenset()
    seen = [_left(sums, drop, colluders, number) for number in range(2)]
    target = float(honest.honest * honest.variance)
    return ShareGame(sums.mechanism, params.honest, target, np.stack(seen)), target


def _left(sums: PrivateAggregator, drop: dict[int, str], colluders: frozenset[int], number: int) -> Codes:
    """One round's noise that the server and its colluders do not know."""
    updates = [np.zeros(VALUES)] * COHORT
    found: Any = sums.mean(updates, drop=drop, model_hash=number.to_bytes(32, "big")).transcript
    view = found.view(frozenset({0}) | colluders)
    if view.params.scheme == "plain":
        return read_codes(view)[1]
    return np.asarray(view.total - sum(view.states[i]["codes"] for i in colluders), dtype=np.int64)


def games(attack: str, scheme: str) -> Game:
    """The games of an attack on the mechanism as it is: number -> (view, truth)."""
    if attack == "A29":
        return lambda number: step_game(Steps(), number)
    return lambda number: share_game(scheme, central=attack == "A30-central")
