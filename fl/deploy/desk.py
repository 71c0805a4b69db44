"""The server's side of one attempt, whatever carries the bytes: who said what, and what goes out next.

An exchange is: hand out `outgoing()`, `take` what comes back, `close()` when everybody answered or the time
is up. A peer's fault is noted and never ends the round by itself; too few clients do (Aborted).
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

from merveil.fl.deploy.task import Task
from merveil.protocols.api import server_session
from merveil.protocols.errors import AbortCode, RemoteError
from merveil.protocols.frame import Frame
from merveil.protocols.identity import Roster
from merveil.protocols.params import Params
from merveil.protocols.registry import get
from merveil.protocols.session import SPENT, Outcome, Phase


@dataclass
class Notes:
    """What a round's log may say: no secret is in it.

    refused: (roster index, code) of frames that were turned away. reports: a client's own word on why it
    stopped, by index. uplink, downlink: bytes of frames by index.
    """

    refused: list[tuple[int, AbortCode | None]] = field(default_factory=list)
    reports: dict[int, str] = field(default_factory=dict)
    uplink: dict[int, int] = field(default_factory=dict)
    downlink: dict[int, int] = field(default_factory=dict)


class RoundDesk:
    """One attempt at one round. roster: the verified one. executor: for parallel unmasking, optional."""

    def __init__(
        self, task: Task, roster: Roster, executor: Executor | None = None, notes: Notes | None = None
    ) -> None:
        self.task = task
        self.roster = roster
        self.notes = Notes() if notes is None else notes
        settings = task.settings()
        self.params: Params = settings["params"]
        self.session = server_session(task.scheme, roster=roster, executor=executor, **settings)
        self._down: Sequence[Frame] = tuple(self.session.start())
        self._moved = False

    @property
    def phase(self) -> Phase:
        return self.session.phase

    @property
    def done(self) -> bool:
        return self.session.phase is Phase.DONE

    @property
    def answering(self) -> bool:
        """Whether the frames that go out now ask for answers: from here on no retry of this round."""
        return self.session.phase is get(self.task.scheme).phases[-1]

    def outgoing(self) -> Iterator[tuple[int, bytes]]:
        """(roster index, frame), each built when it is asked for."""
        for frame in self._down:
            data = frame.encode()
            self.notes.downlink[frame.to] = self.notes.downlink.get(frame.to, 0) + len(data)
            yield frame.to, data

    def recipients(self) -> tuple[int, ...]:
        """Who is addressed next, ascending."""
        return tuple(sorted({frame.to for frame in self._down}))

    def take(self, index: int, frames: Sequence[bytes]) -> None:
        """Frames of the member whom the transport authenticated. Aborted where the round ends by them."""
        for data in frames:
            self.notes.uplink[index] = self.notes.uplink.get(index, 0) + len(data)
            before = self.session.phase
            try:
                down = self.session.receive(index, data)
            except RemoteError as error:
                self.notes.refused.append((index, error.code))
                continue
            if self.session.phase is not before:
                self._down = down
                self._moved = True

    def close(self) -> None:
        """The exchange is over: go to the next phase with who answered. Aborted below the threshold."""
        if not self._moved and self.session.phase not in SPENT:
            self._down = self.session.close_phase()
        self._moved = False

    def result(self) -> Outcome:
        return self.session.result()
