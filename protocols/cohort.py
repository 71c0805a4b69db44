"""Who is invited to a round: a public function that neither server nor client can steer.

Order and choice come from SHA-256 over the roster's beacon, which was drawn after all keys were fixed. Who
does not answer is a dropout, never a reason to draw again.
"""

from functools import lru_cache

from merveil.protocols.errors import LocalError
from merveil.protocols.primitives.kdf import hash_fields


@lru_cache(maxsize=16)
def shuffled(
    beacon: bytes, roster_hash: bytes, purpose: str, round_: int, members: tuple[int, ...]
) -> tuple[int, ...]:
    """The members in the pseudorandom order of (beacon, roster, purpose, round)."""
    seed = hash_fields(f"cohort/1/{purpose}", beacon, roster_hash, round_.to_bytes(4, "big"))
    return tuple(sorted(members, key=lambda i: hash_fields("cohort/1/rank", seed, i.to_bytes(2, "big"))))


def draw_cohort(beacon: bytes, roster_hash: bytes, round_: int, members: int, size: int) -> tuple[int, ...]:
    """Roster indices invited to a round, ascending; size = members invites everyone."""
    if not 1 <= size <= members:
        raise LocalError(f"a cohort of {size} cannot be drawn from a roster of {members}")
    everyone = tuple(range(1, members + 1))
    if size == members:
        return everyone
    return tuple(sorted(shuffled(beacon, roster_hash, "draw", round_, everyone)[:size]))
