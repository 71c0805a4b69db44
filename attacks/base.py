"""What an attack is: a declared adversary, a guess made from a view, and a score made from the truth.

Guarantees: an attack's `infer` gets a `View` (what its corrupted parties saw), a `Public` (what every party
knows) and a generator, and nothing else; the truth is passed only to `score`, after the guess is fixed.
A lint test holds the imports. Assumes: the view was cut from a recorded transcript by `Transcript.view`.
"""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Power(enum.Enum):
    """What an adversary may do beyond running the protocol; docs/attacks.md."""

    READ = "read what its parties receive"
    DROP = "withhold frames"
    DELAY = "delay frames"
    REORDER = "reorder frames"
    REPLAY = "send old frames again"
    INJECT = "send frames of its own"
    MODIFY = "change frames on the way"
    FORK = "tell different parties different things"
    RESTORE = "restore a party's earlier state"
    CHOOSE_MODEL = "choose the model that clients train"
    CHOOSE_PARAMS = "choose the parameters of the round"


@dataclass(frozen=True, slots=True)
class Adversary:
    """Who is corrupted (0 is the server, clients start at 1) and what it may do. Data, not code."""

    name: str
    corrupted: frozenset[int]
    powers: frozenset[Power]
    knows: str  # in words: the side knowledge the attack assumes


CURIOUS_SERVER = Adversary(
    "curious server",
    frozenset({0}),
    frozenset({Power.READ}),
    "the model before the round, the training recipe, and flow features of people outside the federation",
)
NETWORK = Adversary(
    "network",
    frozenset({0}),
    frozenset({Power.READ, Power.MODIFY}),
    "the frames on the wire",
)


MEMBER = Adversary(
    "curious member",
    frozenset({1}),
    frozenset({Power.READ}),
    "every model of the training, as any member does; the recipe; clips and labels of the candidates",
)


COALITION = Adversary(
    "curious server with a quarter of the clients",
    frozenset({0}),  # and clients 1..n/4, as the setting says
    frozenset({Power.READ}),
    "what the curious server knows, and the inputs and frames of its clients",
)
CRAFTER = Adversary(
    "server that chooses the model",
    frozenset({0}),
    frozenset({Power.READ, Power.CHOOSE_MODEL}),
    "the sum that it announces; it made the start model, and all clients train the same one",
)


@dataclass(frozen=True, slots=True, eq=False)
class Public:
    """What every party knows of a round: the task, the start model, the recipe and the published result.

    start: float32 [P], the model before the round. lr: step of the clients' SGD; steps: how many of them,
    on the full local batch. shape: (height, width, channels) of a raw feature image. class_weight: float64
    [K], the loss weight of each class. clips: how many clips each client holds.
    proxy_x [m,h,w,c], proxy_y [m]: features of people outside the federation.
    challenge_x, challenge_y: records of which a membership attack is asked whether they took part.
    aggregate: float64 [P], the published mean update, or None where no round result is known.
    """

    scheme: str
    model: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    start: NDArray[np.float32]
    lr: float
    steps: int
    clip: float
    bits: int
    max_weight: int
    cohort: int
    clips: int
    class_weight: Floats
    proxy_x: NDArray[Any]
    proxy_y: NDArray[np.int64]
    challenge_x: NDArray[Any] | None = None
    challenge_y: NDArray[np.int64] | None = None
    aggregate: Floats | None = None
    options: Mapping[str, Any] = field(default_factory=dict)  # of the network
    sites: tuple[str, ...] = ()  # of exact-ridge, in the order of its first sum
    challenge_site: NDArray[Any] | None = None  # site of each challenge record
    references: Any = None  # attacks.training.References: models that the attacker trained himself
    secret: Any = None  # attacks.seer.Secret: what a server kept from making `start`


@dataclass(frozen=True, slots=True)
class Finding:
    """What an attack achieved, against chance.

    score and chance are in the unit of `statistic`; larger is worse for the clients. ci95: two-sided 95 %
    interval; strict: two-sided 99.8 % interval, which alone may call a claim broken (false alarm 1e-3).
    n counts `unit`s, the independent things that were guessed. mde: the least score that this n tells from
    chance with 95 % power at that false alarm. details: further named figures. held: share of the plays in
    which the defence that the catalogue names was seen; below 1 the claim counts as broken.
    """

    score: float
    chance: float
    ci95: tuple[float, float]
    strict: tuple[float, float]
    n: int
    unit: str
    statistic: str
    mde: float
    details: Mapping[str, float] = field(default_factory=dict)
    held: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """The fields that `docs/schemas/attack.json` lists, as Python's own numbers."""
        return {
            "score": float(self.score),
            "chance": float(self.chance),
            "ci95": [float(v) for v in self.ci95],
            "strict": [float(v) for v in self.strict],
            "n": int(self.n),
            "mde": float(self.mde),
            "unit": self.unit,
            "statistic": self.statistic,
            "details": {name: float(value) for name, value in self.details.items()},
            "held": float(self.held),
        }


@dataclass(frozen=True, slots=True)
class Rule:
    """Thresholds fixed before any run on a secure scheme.

    success: a control must reach it with its point score, and its interval must exclude chance.
    margin: the largest score above chance that the word *protected* allows.
    """

    success: float
    margin: float


Infer = Callable[[Any, Public, np.random.Generator], Any]  # view, public, rng -> guess of one round
Score = Callable[[Any, Any, np.random.Generator], Finding]  # guesses, truths of all rounds, rng


@dataclass(frozen=True, slots=True)
class Attack:
    """One line of the catalogue: one module, one `ATTACK`.

    infer(view, public, rng) -> guess, round by round; score(guesses, truths, rng) -> Finding over all rounds.
    setting names the entry of `attacks.settings.SETTINGS` that it is tried on. on_sum: it reads the published
    sum, so no exact secure aggregation can stop it (a non-claim).
    plain_words: the question in a study coordinator's words. tries, schemes: of an attack in the setting
    "protocol", how many plays the quick form has and which schemes it applies to (none named: all).
    """

    id: str
    title: str
    plain_words: str
    adversary: Adversary
    setting: str
    infer: Infer
    score: Score
    rule: Rule
    source: str
    on_sum: bool = False
    tries: int = 0
    schemes: tuple[str, ...] = ()
