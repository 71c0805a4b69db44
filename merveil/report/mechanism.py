"""What a comparison compares: a scheme, or a scheme with differential privacy on top.

A mechanism is written `SCHEME` or `SCHEME:MODE:EPSILON`, such as `secagg+:distributed:8`.
"""

import math
from dataclasses import dataclass
from typing import Any

from merveil.mer.errors import InputError
from merveil.protocols.registry import names

DELTA, NORM_CLIP = 1e-3, 1.0  # where the command line names none
MODES = ("distributed", "central")


@dataclass(frozen=True)
class Mechanism:
    """scheme: of the registry. dp: none, distributed or central; epsilon: budget of the whole run."""

    scheme: str
    dp: str = "none"
    epsilon: float = 0.0

    @property
    def private(self) -> bool:
        return self.dp != "none"

    @property
    def name(self) -> str:
        """How the report calls it."""
        return f"{self.scheme}, {self.dp} DP \u03b5={self.epsilon:g}" if self.private else self.scheme

    @property
    def key(self) -> str:
        """How the command line and part files spell it."""
        return f"{self.scheme}:{self.dp}:{self.epsilon:g}" if self.private else self.scheme

    def options(self, delta: float, norm_clip: float, clients: str) -> dict[str, Any]:
        """The training options of its guarantee; empty without one. A subject is a person."""
        if not self.private:
            return {}
        unit = "person" if clients == "subject" else "client"
        figures = {"epsilon": self.epsilon, "delta": delta, "norm_clip": norm_clip}
        return {"dp": self.dp, "dp_unit": unit, **figures}


def parse(text: str) -> Mechanism:
    """One mechanism; InputError says which part of it is wrong."""
    scheme, *rest = text.split(":")
    if scheme not in names():
        raise InputError(f"there is no scheme {scheme!r}; there are: {', '.join(names())}")
    if not rest:
        return Mechanism(scheme)
    if len(rest) != 2 or rest[0] not in MODES:
        raise InputError(
            f"{text!r} is no mechanism: write SCHEME or SCHEME:MODE:EPSILON, MODE one of {', '.join(MODES)}"
        )
    try:
        epsilon = float(rest[1])
    except ValueError:
        epsilon = math.nan
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise InputError(f"{text!r}: epsilon must be a positive number, not {rest[1]!r}")
    return Mechanism(scheme, rest[0], epsilon)


def parse_all(text: str | None) -> tuple[Mechanism, ...]:
    """Mechanisms from a comma-separated list; None takes every scheme. InputError: empty, or one twice.

    A private mechanism needs its scheme in the list: single messages look alike under both, and are attacked
    once.
    """
    found = tuple(parse(item) for item in (names() if text is None else text.split(",")))
    keys = [m.key for m in found]
    if not found or len(set(keys)) != len(keys):
        raise InputError("--schemes names each mechanism to compare once, such as plain,secagg+")
    for m in found:
        if m.private and m.scheme not in keys:
            raise InputError(f"{m.key} is compared beside {m.scheme}: add {m.scheme} to --schemes")
    return found
