"""A round of SecAgg played by hand: every frame passes a tap that may drop, change or add frames."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

import merveil.protocols.secagg.client as client_module
from merveil.protocols.errors import Aborted, RemoteError, SessionSpent
from merveil.protocols.frame import Frame
from merveil.protocols.secagg.dealing import Dealing
from merveil.protocols.secagg.messages import Kind
from merveil.protocols.session import Outcome, Phase

Tap = Callable[[Frame], Iterable[Frame]]


class Play:
    """Server and clients of one attempt. `tap` sees every frame; `run` stops before a kind is handed out."""

    def __init__(self, kit: Any, tap: Tap | None = None, **changes: Any) -> None:
        self.kit = kit
        self.context = kit.context(**changes)
        self.clients: dict[int, Any] = {i: kit.client(i, **changes) for i in self.context.cohort}
        self.server: Any = kit.server(**changes)
        self.tap: Tap = tap or (lambda frame: (frame,))
        self.down: list[Frame] = []
        self.log: list[Frame] = []
        self.aborts: dict[int, Aborted] = {}
        self.refused: list[RemoteError] = []
        self.server.start()

    @property
    def sid(self) -> bytes:
        return bytes(self.server._book.sid)

    def start(self, *, submit: bool = True) -> "Play":
        for index, client in self.clients.items():
            self.up(client.start())
            if submit:
                self.up(client.submit(self.kit.codes(index)))
        return self

    def up(self, frames: Iterable[Frame]) -> None:
        for frame in frames:
            for sent in self.tap(frame):
                self.put(sent)

    def put(self, frame: Frame) -> None:
        """One frame to the server, past the tap."""
        self.log.append(frame)
        try:
            self.down += self.server.receive(frame.sender, frame.encode())
        except RemoteError as error:
            self.refused.append(error)

    def hand(self, frame: Frame) -> None:
        """One frame to a client, past the tap."""
        self.log.append(frame)
        frames: Iterable[Frame] = ()
        try:
            frames = self.clients[frame.to].receive(0, frame.encode())
        except Aborted as error:
            self.aborts[frame.to] = error
            frames = error.frames
        except RemoteError as error:
            self.refused.append(error)
        except SessionSpent:
            pass
        self.up(frames)

    def run(self, until: Kind | None = None) -> list[Frame]:
        """Go on until the server's frames of a kind wait to be handed out, or the round is over."""
        while self.server.phase is not Phase.DONE:
            if not self.down:
                self.down = list(self.server.close_phase())
                continue
            if self.down[0].kind == until:
                return self.down
            batch, self.down = self.down, []
            for frame in batch:
                for sent in self.tap(frame):
                    self.hand(sent)
        return []

    def finish(self) -> Outcome:
        self.run()
        outcome: Outcome = self.server.result()
        assert (outcome.codes == self.kit.total(outcome.survivors)).all(), "a wrong sum"
        return outcome

    def sign(self, frame: Frame, **changes: Any) -> Frame:
        """The frame with changed fields, signed by its sender as a malicious client would."""
        changed = replace(frame, **changes)
        binding = self.context.digest if changed.kind == Kind.ADVERT else self.sid
        key = self.kit.federation.identities[changed.sender - 1].sign_key
        return changed.signed(key, binding)

    def forge(self, kind: Kind, sender: int, body: bytes) -> Frame:
        session = self.context.digest if kind is Kind.ADVERT else self.sid
        suite = self.server._suite
        return self.sign(Frame(suite, kind, session[:16], sender, 0, body))


@pytest.fixture
def small(kit: Any) -> Callable[..., Any]:
    """`small()`: a kit of five clients in the complete graph, t = 4, c = 1."""
    return partial(kit, "secagg")


@pytest.fixture
def sparse(kit: Any) -> Callable[..., Any]:
    """`sparse()`: a kit of 24 clients on a ring, k = 8, t = 6, c = 2."""
    return partial(kit, "secagg+", cohort=24)


@pytest.fixture
def play() -> type[Play]:
    return Play


@pytest.fixture
def corrupt_dealing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`corrupt_dealing(change, *dealers)`: these clients deal as `change(dealing)` says."""

    def install(change: Callable[[Dealing], Dealing], *dealers: int) -> None:
        honest = client_module.deal

        def deal(context: bytes, dealer: int, holders: Sequence[int], threshold: int, rng: Any) -> Dealing:
            dealing = honest(context, dealer, holders, threshold, rng)
            return change(dealing) if dealer in dealers else dealing

        monkeypatch.setattr(client_module, "deal", deal)

    return install
