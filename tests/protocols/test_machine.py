"""Phases change by the table, and never out of a spent phase."""

import pytest

from merveil.protocols.errors import LocalError, SessionSpent
from merveil.protocols.machine import Event, step
from merveil.protocols.session import SPENT, Phase

TABLE = {(Phase.IDLE, Event.START): Phase.SUBMIT, (Phase.DONE, Event.START): Phase.IDLE}


def test_a_move_of_the_table_is_made() -> None:
    assert step(TABLE, SPENT, Phase.IDLE, Event.START) is Phase.SUBMIT


@pytest.mark.parametrize("event", [e for e in Event if e is not Event.START])
def test_any_other_move_is_the_callers_mistake(event: Event) -> None:
    with pytest.raises(LocalError, match=event.name) as caught:
        step(TABLE, SPENT, Phase.IDLE, event)
    assert not isinstance(caught.value, SessionSpent)


@pytest.mark.parametrize("phase", sorted(SPENT, key=lambda p: p.value))
@pytest.mark.parametrize("event", list(Event))
def test_spent_means_spent_even_where_a_table_says_otherwise(phase: Phase, event: Event) -> None:
    with pytest.raises(SessionSpent):
        step(TABLE, SPENT, phase, event)
