"""What must hold in every simulated schedule, and the vectors that make a wrong sum visible.

A client's vector testifies: digit i - 1 of it, in a base above the cohort size, is one, and all others are
zero. So a lost, doubled or foreign vector shows in the total, whatever else the total hides.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from merveil.protocols.codec import Codes
from merveil.protocols.errors import LocalError, SessionSpent
from merveil.protocols.params import Params
from merveil.protocols.rng import SeededRng
from merveil.protocols.session import SPENT, ClientSession, Outcome, ServerSession


class BrokenInvariant(AssertionError):
    """A schedule in which a protocol did what it must never do."""


def demand(holds: bool, why: str) -> None:
    if not holds:
        raise BrokenInvariant(why)


def _digits(params: Params) -> int:
    """Digits in base cohort + 1 that one coordinate carries, at least one."""
    count, base = 1, params.cohort + 1
    while base ** (count + 1) <= params.levels:
        count += 1
    return count


def marked_codes(params: Params, position: int, rng: SeededRng) -> Codes:
    """Codes of the client at 0-based `position` in the cohort; uniform, extremes included, after its digit.

    The first ceil(cohort / digits) coordinates testify where dim has room for them; all others are noise.
    """
    words = np.frombuffer(rng.draw(8 * params.size, "marked_codes"), dtype="<u8")
    codes = (words % np.uint64(2 * params.levels + 1)).astype(np.int64) - params.levels
    codes[words % np.uint64(7) == 0] = params.levels
    codes[words % np.uint64(11) == 0] = -params.levels
    digits = _digits(params)
    room = -(-params.cohort // digits)
    if room <= params.dim:
        codes[:room] = 0
        codes[position // digits] = (params.cohort + 1) ** (position % digits)
    if params.weighted:
        codes[params.dim] = 1 + int(words[-1] % np.uint64(params.max_weight))
    return codes


def witnesses(params: Params, total: Codes) -> dict[int, int] | None:
    """How often each 0-based position is in a total; None where dim has no room for the digits."""
    digits, base = _digits(params), params.cohort + 1
    if -(-params.cohort // digits) > params.dim:
        return None
    return {i: int(total[i // digits]) // base ** (i % digits) % base for i in range(params.cohort)}


def check_outcome(
    params: Params, cohort: tuple[int, ...], outcome: Outcome, submitted: Mapping[int, Codes]
) -> None:
    """The outcome is the exact sum of the vectors that its survivors' sessions submitted."""
    survivors = outcome.survivors
    demand(tuple(sorted(set(survivors))) == survivors, f"survivors are no ascending set: {survivors}")
    demand(set(survivors) <= set(submitted), "a survivor never submitted a vector")
    demand(len(survivors) >= params.threshold, f"{len(survivors)} survivors, below the threshold")
    demand(not set(outcome.excluded) & set(survivors), "an excluded client is in the sum")
    expected = np.sum([submitted[i] for i in survivors], axis=0)
    demand(outcome.codes.dtype == np.int64, f"a sum of {outcome.codes.dtype}")
    demand(np.array_equal(outcome.codes, expected), "the sum is not that of the survivors' vectors")
    seen = witnesses(params, outcome.codes)
    if seen is not None:
        named = {cohort.index(i) for i in survivors}
        demand(all(n == (i in named) for i, n in seen.items()), f"the vectors testify to {seen}")


def check_spent(sessions: Iterable[ClientSession | ServerSession]) -> None:
    """No move leads out of a spent session, and none changes it."""
    for session in sessions:
        phase = session.phase
        demand(phase in SPENT, f"the session should be spent, but is in {phase.name}")
        moves = [session.start, session.suspend]
        if hasattr(session, "close_phase"):
            moves.append(session.close_phase)
        for move in moves:
            try:
                move()
            except SessionSpent:
                demand(session.phase is phase, "a spent session changed its phase")
            except LocalError as error:
                raise BrokenInvariant(f"a spent session raised {error!r}, not SessionSpent") from error
            else:
                raise BrokenInvariant(f"a spent session moved: {move.__name__}")
