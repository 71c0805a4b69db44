"""One step of a client in a round: bytes in, bytes out, the session asleep in between.

Between two steps a client is a sealed snapshot, which may lie in anybody's store, and its ledger, which
lies in the party's own folder. The ledger is open for the length of a step only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from merveil.fl.deploy.member import Member
from merveil.fl.deploy.task import Task
from merveil.protocols.api import client_session
from merveil.protocols.codec import Codes
from merveil.protocols.dp.discrete import Mechanism
from merveil.protocols.errors import AbortCode, Aborted, RemoteError
from merveil.protocols.ledger import Ledger
from merveil.protocols.session import SPENT, ClientSession


@dataclass(frozen=True)
class Step:
    """What a step gave.

    frames: to the server, in order. snapshot: for the next step, empty when the session is over. code, why:
    of the abort that ended it, or of the server's frame that was refused; no secret is in them. spent: the
    site's own privacy budget is the reason.
    """

    frames: tuple[bytes, ...]
    snapshot: bytes = field(default=b"", repr=False)
    code: AbortCode | None = None
    why: str = ""
    spent: bool = False

    @property
    def aborted(self) -> bool:
        return not self.snapshot and self.code is not None


def begin(
    member: Member,
    task: Task,
    codes: Codes | None = None,
    now: int | None = None,
    mechanism: Mechanism | None = None,
) -> Step:
    """Open the round. codes: the vector, where it is due in the first phase. mechanism: of the noise that the
    caller puts into it; a task that names one is refused by a caller that does not."""

    def move(session: ClientSession) -> list[bytes]:
        frames = [f.encode() for f in session.start()]
        if codes is not None:
            frames += [f.encode() for f in session.submit(codes)]
        return frames

    return _stepped(member, task, None, now, mechanism, move)


def go_on(
    member: Member,
    task: Task,
    snapshot: bytes,
    inbound: Sequence[bytes],
    codes: Codes | None = None,
    now: int | None = None,
    mechanism: Mechanism | None = None,
) -> Step:
    """Hear the server's frames, then hand in the vector where it is given. An old snapshot aborts with
    STATE_ROLLBACK and changes nothing."""

    def move(session: ClientSession) -> list[bytes]:
        frames = []
        for data in inbound:
            frames += [f.encode() for f in session.receive(0, data)]
        if codes is not None:
            frames += [f.encode() for f in session.submit(codes)]
        return frames

    return _stepped(member, task, snapshot, now, mechanism, move)


def _stepped(
    member: Member,
    task: Task,
    snapshot: bytes | None,
    now: int | None,
    mechanism: Mechanism | None,
    move: Callable[[ClientSession], list[bytes]],
) -> Step:
    """Wake the session, move it, put it to sleep. LocalError passes: the caller's mistake."""
    with member.ledger() as ledger:
        try:
            session = _session(member, task, ledger, snapshot, now, mechanism)
            code, why, frames = None, "", []
            try:
                frames = move(session)
            except RemoteError as error:  # the server's frame is refused, the session waits for a better one
                code, why = error.code or AbortCode.MALFORMED_FRAME, str(error)
            asleep = b"" if session.phase in SPENT else session.suspend()
            return Step(tuple(frames), asleep, code, why)
        except Aborted as error:
            return Step(tuple(f.encode() for f in error.frames), b"", error.code, str(error))


def _session(
    member: Member,
    task: Task,
    ledger: Ledger,
    snapshot: bytes | None,
    now: int | None,
    mechanism: Mechanism | None,
) -> ClientSession:
    if task.mechanism and mechanism is None:
        raise Aborted(
            AbortCode.PARAMS_BELOW_FLOOR, "the task asks for noise, and nothing here adds any", (0,)
        )
    return client_session(
        task.scheme,
        identity=member.identity,
        roster=member.roster,
        policy=member.policy,
        ledger=ledger,
        snapshot=snapshot,
        now=now,
        mechanism=mechanism,
        **task.settings(),
    )
