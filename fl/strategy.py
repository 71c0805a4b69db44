"""What the server does with the mean update: FedAvg, FedProx, FedAdam, FedAdamW, SCAFFOLD.

The server sees the weighted mean of the survivors' updates and nothing else; its state is of the size of
the model. `delta` is the mean of (local - global), so a client that makes one plain gradient step of length
1 sends minus its gradient.

- fedavg (McMahan et al. 2017, AISTATS, algorithm 1): x <- x + server_lr * delta.
- fedprox (Li et al. 2020, MLSys): the server of fedavg; clients add prox_mu / 2 * |x - x_global|^2 (squared).
- fedadam (Reddi et al. 2021, ICLR, algorithm 2): m <- b1 m + (1-b1) delta, v <- b2 v + (1-b2) delta^2 with
  v_0 = tau^2, x <- x + server_lr * m / (sqrt(v) + tau). No bias correction, as published.
- fedadamw: the same with the bias correction and decoupled weight decay of AdamW (Loshchilov and Hutter
  2019). With one full-batch gradient per client and round this is AdamW on the pooled data, since the
  weighted mean of the clients' gradients is the gradient of the pooled mean loss.
- scaffold (Karimireddy et al. 2020, ICML, algorithm 1, option II): clients step along their gradient plus
  c - c_i; c moves by the share of survivors times the mean change of the c_i. With every client taking the
  same number K of plain steps of rate lr, that mean is -delta/(K lr) - c, which the server computes from the
  mean update it has: nothing further crosses, where the published form sends a second vector.

ema: a running average of the models after each round, which is what predicts; 0 for none.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from merveil.mer.errors import InputError

Vector = NDArray[np.float64]

STRATEGIES = ("fedavg", "fedprox", "fedadam", "fedadamw", "scaffold")


@dataclass(frozen=True)
class Strategy:
    """A server rule and its constants.

    rounds is needed by the cosine schedule only; reach, K times the clients' rate, by scaffold only.
    """

    name: str = "fedavg"
    server_lr: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.999
    tau: float = 1e-3  # Reddi's adaptivity; AdamW's epsilon
    weight_decay: float = 0.0
    schedule: str = "constant"
    rounds: int = 1
    reach: float = 1.0
    ema: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in STRATEGIES:
            raise InputError(f"strategy {self.name!r} is not known: use one of {', '.join(STRATEGIES)}")
        if self.schedule not in ("constant", "cosine"):
            raise InputError(f"server schedule {self.schedule!r} is not known: use constant or cosine")
        for name, value in (("server_lr", self.server_lr), ("tau", self.tau)):
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} must be a positive number, not {value!r}")
        for name, value in (("beta1", self.beta1), ("beta2", self.beta2), ("ema", self.ema)):
            if not 0 <= value < 1:
                raise InputError(f"{name} must lie in [0, 1), not {value!r}")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise InputError(f"weight_decay must be zero or positive, not {self.weight_decay!r}")

    def rate(self, round_: int) -> float:
        """The server's learning rate of round 0, 1, ...; the cosine falls to zero after the last round."""
        if self.schedule == "constant":
            return self.server_lr
        return self.server_lr * 0.5 * (1.0 + math.cos(math.pi * round_ / self.rounds))

    def start(self, size: int) -> "ServerState":
        """Fresh moments for a model of `size` numbers."""
        first = self.tau**2 if self.name == "fedadam" else 0.0
        return ServerState(np.zeros(size), np.full(size, first), np.zeros(size if self.ema else 0))

    def step(
        self, params: Vector, delta: Vector, state: "ServerState", round_: int, share: float = 1.0
    ) -> tuple[Vector, "ServerState"]:
        """One server step: (new params, new state), float64 [P]; the arguments are left as they are.

        share: of the clients that are in the mean.
        """
        stepped, moved = self._step(params, delta, state, round_, share)
        average = state.average
        if self.ema:
            average = self.ema * average + (1 - self.ema) * stepped
        return stepped, ServerState(moved.first, moved.second, average)

    def final(self, params: Vector, state: "ServerState", rounds: int) -> Vector:
        """The model that predicts after `rounds` >= 1 rounds: the running average where there is one."""
        return state.average / (1 - self.ema**rounds) if self.ema and rounds else params

    def _step(
        self, params: Vector, delta: Vector, state: "ServerState", round_: int, share: float
    ) -> tuple[Vector, "ServerState"]:
        rate = self.rate(round_)
        if self.name in ("fedavg", "fedprox"):
            return params + rate * delta, state
        if self.name == "scaffold":
            control = state.first + share * (-delta / self.reach - state.first)
            return params + rate * delta, ServerState(control, state.second)
        first = self.beta1 * state.first + (1 - self.beta1) * delta
        second = self.beta2 * state.second + (1 - self.beta2) * delta**2
        new = ServerState(first, second)
        if self.name == "fedadam":
            return params + rate * first / (np.sqrt(second) + self.tau), new
        tall = first / (1 - self.beta1 ** (round_ + 1))
        wide = np.sqrt(second / (1 - self.beta2 ** (round_ + 1)))
        return params * (1 - rate * self.weight_decay) + rate * tall / (wide + self.tau), new


@dataclass(frozen=True, eq=False)
class ServerState:
    """First and second moment of the mean update, float64 [P] each; zeros where the rule has none.

    For scaffold first is the server's control c. average: the running sum of `ema`, empty without it.
    """

    first: Vector
    second: Vector
    average: Vector = field(default_factory=lambda: np.zeros(0))
