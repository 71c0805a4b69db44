"""What was said in a round, and the part of it that a coalition holds.

Recorded on request by the simulator and the in-process driver only. Attacks read a View and nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from merveil.protocols.frame import Frame
from merveil.protocols.params import Params


@dataclass(frozen=True)
class View:
    """What the corrupted parties saw.

    corrupted: roster indices, 0 is the server. frames: those that touched them, in order of sending. states:
    their own inputs and secrets. params: public. total, survivors: the announced sum, which all may know.
    """

    corrupted: frozenset[int]
    frames: tuple[Frame, ...] = field(repr=False)
    states: Mapping[int, Mapping[str, Any]] = field(repr=False)
    params: Params
    context: bytes
    survivors: tuple[int, ...] = ()
    total: Any = field(default=None, repr=False)


@dataclass(frozen=True)
class Transcript:
    """A whole round. states: inputs by party, for the views of coalitions and for the scorer's truth."""

    params: Params
    context: bytes
    frames: tuple[Frame, ...] = field(repr=False)
    states: Mapping[int, Mapping[str, Any]] = field(repr=False)
    survivors: tuple[int, ...] = ()
    total: Any = field(default=None, repr=False)

    def view(self, corrupted: frozenset[int]) -> View:
        """Frames sent or received by the corrupted parties, and their own states."""
        touched = tuple(f for f in self.frames if f.sender in corrupted or f.to in corrupted)
        states = {i: s for i, s in self.states.items() if i in corrupted}
        return View(corrupted, touched, states, self.params, self.context, self.survivors, self.total)
