"""The one way a session changes phase.

Every session owns a transition table; `step` looks the move up and nothing else changes a phase. The docs
draw their diagrams from the same tables.
"""

import enum
from collections.abc import Mapping
from typing import TypeVar

from merveil.protocols.errors import LocalError, SessionSpent


class Event(enum.Enum):
    """What can happen to a session."""

    START = enum.auto()
    ADVANCE = enum.auto()  # the phase's messages are complete, or its deadline was called
    FINISH = enum.auto()
    FAIL = enum.auto()
    SUSPEND = enum.auto()


P = TypeVar("P", bound=enum.Enum)


def step(table: Mapping[tuple[P, Event], P], spent: frozenset[P], phase: P, event: Event) -> P:
    """The phase after `event`; SessionSpent out of a spent phase, LocalError for a move not in the table."""
    if phase in spent:
        raise SessionSpent(f"the session is over: {phase.name}")
    if (phase, event) not in table:
        raise LocalError(f"{event.name} is not allowed in phase {phase.name}")
    return table[phase, event]
