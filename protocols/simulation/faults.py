"""Faults of the simulated network, as data, and the dice that decide them.

Every decision is drawn from a seed, so a failing seed replays. Nothing here is a source of secrets.
"""

from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass
from typing import TypeVar

from merveil.protocols.frame import HEAD
from merveil.protocols.rng import SeededRng

T = TypeVar("T")


class Dice:
    """Choices from a seed, labelled like every other draw."""

    def __init__(self, rng: SeededRng, label: str = "dice") -> None:
        self._rng = rng
        self._label = label
        self._pool = b""

    def _word(self) -> int:
        if len(self._pool) < 4:
            self._pool = self._rng.draw(256, self._label)
        word, self._pool = self._pool[:4], self._pool[4:]
        return int.from_bytes(word, "big")

    def chance(self, probability: float) -> bool:
        """True with this probability; a probability of zero draws nothing."""
        return probability > 0 and self._word() < probability * 2**32

    def below(self, bound: int) -> int:
        """An integer in [0, bound); the bias of the remainder does not matter here."""
        return self._word() % bound

    def pick(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def shuffle(self, items: MutableSequence[T]) -> None:
        for i in range(len(items) - 1, 0, -1):
            j = self.below(i + 1)
            items[i], items[j] = items[j], items[i]


@dataclass(frozen=True)
class Faults:
    """Probabilities of what goes wrong.

    Per message: drop, delay (moved behind others, or behind the end of its phase), duplicate, reorder
    (another waiting message overtakes it), tamper (see `damage`), replay (an earlier message of any attempt
    or round is delivered again). Per call of a client: crash (with none, some or all of its frames sent),
    sleep (suspend; it is resumed when something arrives for it). Per write of a client's ledger: torn (the
    machine stops just before, or just after, the write is durable). Per resume: rollback (an older snapshot
    is tried first; it must be refused). Per crash: revive (the client tries its old snapshots, which must be
    refused, then a new session). Per step: nap (the server is suspended and resumed), deadline (the phase
    is closed). Per attempt: stubborn (the server retries although it must not).
    """

    drop: float = 0.0
    delay: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    tamper: float = 0.0
    replay: float = 0.0
    crash: float = 0.0
    sleep: float = 0.0
    torn: float = 0.0
    rollback: float = 0.0
    revive: float = 0.0
    nap: float = 0.0
    deadline: float = 0.0
    stubborn: float = 0.0

    @property
    def forges(self) -> bool:
        """Whether parties may receive bytes that nobody meant for them now."""
        return self.tamper > 0 or self.replay > 0


CALM = Faults()
LOSSY = Faults(drop=0.08, delay=0.1, duplicate=0.1, reorder=0.3, deadline=0.01)
SLEEPY = Faults(reorder=0.3, sleep=0.5, rollback=0.3, nap=0.2)
CRASHY = Faults(reorder=0.2, crash=0.05, torn=0.03, sleep=0.2, rollback=0.3, revive=0.7, stubborn=0.5)
HOSTILE = Faults(
    drop=0.03, delay=0.05, duplicate=0.1, reorder=0.3, tamper=0.1, replay=0.1, crash=0.02, sleep=0.15,
    torn=0.01, rollback=0.3, revive=0.5, nap=0.05, deadline=0.01, stubborn=0.5,
)  # fmt: skip
NAMED = {"calm": CALM, "lossy": LOSSY, "sleepy": SLEEPY, "crashy": CRASHY, "hostile": HOSTILE}

_FIELDS = {"magic": (0, 2), "version": (2, 3), "suite": (3, 4), "kind": (4, 5), "session": (5, 21),
           "sender": (21, 23), "to": (23, 25), "length": (25, 29)}  # fmt: skip


def damage(data: bytes, dice: Dice) -> bytes:
    """One fault in a frame: flipped bits, a cut, an extension, or a header field with another value."""
    kind = dice.pick(("flip", "flips", "cut", "extend", "field", "swap", "empty"))
    if kind == "empty" or not data:
        return b""
    raw = bytearray(data)
    if kind in ("flip", "flips"):
        for _ in range(1 if kind == "flip" else 1 + dice.below(8)):
            raw[dice.below(len(raw))] ^= 1 << dice.below(8)
    elif kind == "cut":
        del raw[dice.below(len(raw)) :]
    elif kind == "extend":
        raw += bytes(dice.below(256) for _ in range(1 + dice.below(40)))
    elif kind == "field" and len(raw) >= HEAD.size:
        start, stop = _FIELDS[dice.pick(tuple(_FIELDS))]
        raw[start:stop] = bytes(dice.pick((0, 1, 2, 255, dice.below(256))) for _ in range(stop - start))
    else:
        half = len(raw) // 2
        raw[:] = raw[half:] + raw[:half]
    return bytes(raw)
