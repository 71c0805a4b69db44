"""Errors of the protocol core: who is wrong decides the class.

LocalError: fix the caller. RemoteError: a peer broke the protocol. Aborted: no sum, open a new attempt.
A call that raises LocalError or RemoteError has changed nothing. Branch on class and code, never on text.
"""

import enum
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from merveil.protocols.frame import Frame


class AbortCode(enum.Enum):
    """Why a session ended without a sum, or why an input was refused. Listed in docs/errors.md."""

    ROUND_REUSED = "this party already took part in, or answered for, this round"
    DOUBLE_CLAIM = "one client is claimed both as a survivor and as a dropout"
    ROSTER_MISMATCH = "parties disagree on the roster, the cohort or the survivor list"
    MODEL_MISMATCH = "parties disagree on the model or the task configuration"
    PARAMS_MISMATCH = "parties disagree on the parameters of the round"
    PARAMS_BELOW_FLOOR = "the parameters fall below this party's own policy"
    COHORT_TOO_SMALL = "fewer honest survivors than this party's policy asks for"
    BELOW_THRESHOLD = "too few clients answered to finish the round"
    BAD_KEY = "a key was substituted, malformed or of low order"
    BAD_SHARE = "a share contradicts its commitment, or a reconstruction failed its check"
    BAD_SIGNATURE = "a signature does not verify"
    BAD_CIPHERTEXT = "a ciphertext is malformed or outside the pinned parameters"
    MALFORMED_FRAME = "bytes are not a frame of this session"
    STALE_KEY = "a key of an earlier round or roster was offered"
    STALE_ROSTER = "the roster is expired, not yet valid, or older than one already seen"
    STATE_ROLLBACK = "a snapshot is not the newest one of this session"
    KEY_REUSE = "a single-use key would be used twice"
    ARCH_MISMATCH = "the model's architecture is not the pinned one"
    IMPLAUSIBLE_SUM = "the sum lies outside what the survivors can have sent"
    MODULUS_TOO_SMALL = "the sum of a full cohort does not fit the modulus"
    INPUT_RANGE = "a value lies outside the stated range"
    INPUT_NOT_FINITE = "a value is NaN or infinite"
    SHAPE_MISMATCH = "a shape, length or type is not the declared one"


class MerveilError(Exception):
    """Base of all errors of merveil's protocols; only its children are raised."""


class LocalError(MerveilError):
    """The caller misused the interface or passed a bad input; nothing has changed."""

    def __init__(self, why: str, code: AbortCode | None = None) -> None:
        super().__init__(why if code is None else f"{code.name}: {why}")
        self.code = code


class SessionSpent(LocalError):
    """The session has finished, aborted or been suspended."""


class RemoteError(MerveilError):
    """A peer broke the protocol; `culprits` are roster indices (0 is the server). Nothing has changed."""

    def __init__(self, why: str, culprits: Iterable[int], code: AbortCode | None = None) -> None:
        super().__init__(why if code is None else f"{code.name}: {why}")
        self.culprits = frozenset(culprits)
        self.code = code


class Aborted(MerveilError):
    """The session ended without a sum.

    code: why. culprits: roster indices that provably broke the protocol, where known.
    released: whether secret-dependent answers of this round may have left this party, so that a retry
    of the round is refused. frames: last words (a complaint) that the caller still has to send.
    """

    def __init__(
        self,
        code: AbortCode,
        why: str = "",
        culprits: Iterable[int] = (),
        *,
        released: bool = False,
        frames: Iterable["Frame"] = (),
    ) -> None:
        super().__init__(f"{code.name}: {why or code.value}")
        self.code = code
        self.culprits = frozenset(culprits)
        self.released = released
        self.frames = tuple(frames)
