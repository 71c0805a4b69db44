"""The server's connections: who is here, what is on its way to whom, and what came back.

Guarantee: only members of the roster are let in, each by a signature over this connection; a member that
connects again replaces its earlier connection; every queue has a bound, so a fast or hostile site waits in
its own socket. What a site was sent in the exchange that is open is sent again when it comes back.
"""

import asyncio
import contextlib
import os
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from merveil.fl.deploy.channel import (
    BEFORE_LOGIN,
    NONCE,
    SITE_PURPOSE,
    VERSION,
    Kind,
    Message,
    pack,
    proof_fields,
    size_of,
    unpack,
)
from merveil.fl.runs import RunLog
from merveil.protocols.errors import RemoteError
from merveil.protocols.identity import Roster
from merveil.protocols.primitives.sign import verify

LOGIN_SECONDS, SEND_SECONDS = 20.0, 60.0
STRANGERS = 64  # connections at a time that have not shown who they are


@dataclass(eq=False)
class Peer:
    """A connection of a member."""

    index: int
    writer: asyncio.StreamWriter = field(repr=False)
    task: "asyncio.Task[None] | None" = field(default=None, repr=False)


class Hub:
    """roster: who may come in. certificate: SHA-256 of the server's own. limit: bytes of a message.

    offer: what WELCOME tells besides. Incoming replies wait in `inbox`, which holds two a member.
    """

    def __init__(
        self,
        roster: Roster,
        certificate: bytes,
        limit: int,
        log: RunLog,
        offer: Callable[[], dict[str, object]],
    ) -> None:
        self._roster, self._certificate, self._limit = roster, certificate, limit
        self._log, self._offer = log, offer
        self.peers: dict[int, Peer] = {}
        self.inbox: asyncio.Queue[tuple[int, Message]] = asyncio.Queue(2 * len(roster))
        self.changed = asyncio.Event()  # somebody came or went
        self._open: dict[int, bytes] = {}
        self._strangers = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.refused = 0

    async def listen(self, host: str, port: int, context: ssl.SSLContext) -> int:
        """Begin to listen; the port that was bound."""
        self._server = await asyncio.start_server(
            self._arrive, host, port, ssl=context, ssl_handshake_timeout=LOGIN_SECONDS, limit=1 << 16
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self, why: str = "") -> None:
        """Stop listening and close all connections. With `why` the sites are told that it is over; without,
        they dial until a server is there again."""
        self._open = {}
        if why:
            data = pack(Kind.BYE, {"why": why})
            await asyncio.gather(*(self._send(peer, data) for peer in list(self.peers.values())))
        if self._server is not None:
            self._server.close()
        for peer in list(self.peers.values()):
            self._drop(peer)
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=2)

    def name(self, index: int) -> str:
        return self._roster.member(index).name

    # Sending

    async def open_exchange(self, messages: Mapping[int, bytes]) -> None:
        """Send to who is here; who comes later, while this exchange is open, is sent its message then."""
        self._open = dict(messages)
        here = [self.peers[i] for i in messages if i in self.peers]
        await asyncio.gather(*(self._send(peer, messages[peer.index]) for peer in here))

    def answered(self, index: int) -> None:
        self._open.pop(index, None)

    def close_exchange(self) -> None:
        self._open = {}

    async def _send(self, peer: Peer, data: bytes) -> None:
        try:
            peer.writer.write(data)
            await asyncio.wait_for(peer.writer.drain(), SEND_SECONDS)
        except (OSError, TimeoutError):
            self._drop(peer)

    # Arriving

    async def _arrive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._welcome(reader, writer)
        except asyncio.CancelledError:  # the server is going down, and nobody awaits this task
            writer.close()
        finally:
            self._tasks.discard(task)

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = None
        if self._strangers >= STRANGERS:
            writer.close()
            return
        self._strangers += 1
        try:
            peer = await asyncio.wait_for(self._login(reader, writer), LOGIN_SECONDS)
        except (RemoteError, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            self.refused += 1
            self._log.detail(f"a connection was turned away: {type(error).__name__}: {error}")
        finally:
            self._strangers -= 1
        if peer is None:
            writer.close()
            return
        await self._stay(peer, reader)

    async def _login(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Peer:
        nonce = os.urandom(NONCE)
        writer.write(pack(Kind.HELLO, {"version": VERSION, "nonce": nonce.hex()}))
        await writer.drain()
        login = await _receive(reader, BEFORE_LOGIN)
        index, roster = login.number("index"), self._roster
        if login.kind is not Kind.LOGIN or login.number("version") != VERSION:
            raise RemoteError("no login of this version", ())
        if login.data("roster", 32) != roster.hash:
            writer.write(pack(Kind.BYE, {"why": f"ROSTER_MISMATCH: the server has serial {roster.serial}"}))
            await writer.drain()
            raise RemoteError("a login under another roster", ())
        if not 1 <= index <= len(roster):
            raise RemoteError("a login under no member's index", ())
        fields = proof_fields(roster, index, nonce, login.data("nonce", NONCE), self._certificate)
        if not verify(roster.member(index).sign_key, login.data("proof", 64), SITE_PURPOSE, *fields):
            raise RemoteError(f"somebody is not {self.name(index)!r}", ())
        writer.write(pack(Kind.WELCOME, dict(self._offer())))
        await writer.drain()
        return Peer(index, writer)

    async def _stay(self, peer: Peer, reader: asyncio.StreamReader) -> None:
        """Read a member's replies until it leaves. The bound of the inbox holds back who is too fast."""
        before = self.peers.get(peer.index)
        if before is not None:
            self._drop(before)
        self.peers[peer.index] = peer
        self._log.info(f"{self.name(peer.index)!r} is here ({len(self.peers)} of {len(self._roster)})")
        self.changed.set()
        try:
            if peer.index in self._open:
                await self._send(peer, self._open[peer.index])
            while self.peers.get(peer.index) is peer:
                message = await _receive(reader, self._limit)
                if message.kind is Kind.REPLY:
                    await self.inbox.put((peer.index, message))
        except (RemoteError, OSError, asyncio.IncompleteReadError) as error:
            self._log.detail(f"{self.name(peer.index)!r}: {type(error).__name__}")
        finally:
            self._drop(peer)

    def _drop(self, peer: Peer) -> None:
        if self.peers.get(peer.index) is peer:
            del self.peers[peer.index]
            self._log.info(f"{self.name(peer.index)!r} left ({len(self.peers)} of {len(self._roster)})")
            self.changed.set()
        with contextlib.suppress(OSError):
            peer.writer.close()


async def _receive(reader: asyncio.StreamReader, limit: int) -> Message:
    size = size_of(await reader.readexactly(4), limit)
    return unpack(await reader.readexactly(size))
