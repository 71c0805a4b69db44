"""Carries frames between session objects in one process: real bytes, no network.

It measures and tests; it protects nobody, since it holds every key.
"""

from collections.abc import Iterable, Mapping, MutableSequence
from dataclasses import dataclass, field

from merveil.protocols.codec import Codes
from merveil.protocols.errors import LocalError
from merveil.protocols.frame import SERVER, Frame
from merveil.protocols.session import ClientSession, Outcome, Phase, ServerSession


@dataclass
class Traffic:
    """Bytes by party, and the frames where recording was asked for."""

    uplink: dict[int, int] = field(default_factory=dict)
    downlink: dict[int, int] = field(default_factory=dict)
    frames: MutableSequence[Frame] | None = None

    def note(self, frame: Frame, size: int) -> None:
        side, party = (self.uplink, frame.sender) if frame.to == SERVER else (self.downlink, frame.to)
        side[party] = side.get(party, 0) + size
        if self.frames is not None:
            self.frames.append(frame)


class Driver:
    """One round over perfect links, with clients that fall silent where `drop` says.

    order: the scheme's phases. drop: index -> phase from which on that client sends and hears nothing.
    """

    def __init__(
        self,
        server: ServerSession,
        clients: Mapping[int, ClientSession],
        order: tuple[Phase, ...],
        drop: Mapping[int, Phase] | None = None,
        traffic: Traffic | None = None,
    ) -> None:
        self._server = server
        self._clients = clients
        self._rank = {phase: i for i, phase in enumerate(order)}
        self._drop = {i: self._position(i, phase) for i, phase in (drop or {}).items()}
        self.traffic = traffic or Traffic()

    def _position(self, index: int, phase: Phase) -> int:
        if phase not in self._rank:
            known = ", ".join(p.value for p in self._rank)
            raise LocalError(f"client {index} cannot drop at {phase.value}: the phases are {known}")
        return self._rank[phase]

    def _silent(self, index: int, phase: Phase) -> bool:
        return self._rank.get(phase, len(self._rank)) >= self._drop.get(index, len(self._rank) + 1)

    def run(self, codes: Mapping[int, Codes]) -> Outcome:
        """Play the round to its end. Raises whatever a session raises."""
        down = list(self._server.start())
        phase = self._server.phase
        for index, client in self._clients.items():
            if self._silent(index, phase):
                continue
            down += self._deliver(client.start(), phase)
            down += self._deliver(client.submit(codes[index]), phase)
        while self._server.phase is not Phase.DONE:
            if not down:
                down = list(self._server.close_phase())
            phase, batch, down = self._server.phase, down, []
            for frame in batch:
                down += self._hand_over(frame, phase)
        return self._server.result()

    def _deliver(self, frames: Iterable[Frame], phase: Phase) -> list[Frame]:
        answers: list[Frame] = []
        for frame in frames:
            if self._silent(frame.sender, phase):
                continue
            data = frame.encode()
            self.traffic.note(frame, len(data))
            answers += self._server.receive(frame.sender, data)
        return answers

    def _hand_over(self, frame: Frame, phase: Phase) -> list[Frame]:
        data = frame.encode()
        self.traffic.note(frame, len(data))
        if frame.to not in self._clients or self._silent(frame.to, phase):
            return []
        return self._deliver(self._clients[frame.to].receive(SERVER, data), phase)
