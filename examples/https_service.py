"""Secure aggregation as a small HTTPS service: asyncio at the server, http.client at the sites.

    python examples/https_service.py

A site posts its frames to /frames and gets back the frames that wait for it; it asks again until the round
is over. The service moves bytes and closes a phase when its time is up; everything else is in the sessions.
A token in a header says who is posting; were it stolen, the frames' signatures would still be the member's.
"""

import asyncio
import http.client
import secrets
import ssl
import tempfile
import time
from pathlib import Path

import numpy as np

import merveil
from merveil.fl.deploy.channel import pack_list, unpack_list  # count and lengths; any framing does
from merveil.fl.deploy.tls import new_certificate, server_context, site_context
from merveil.protocols.codec import Codec
from merveil.protocols.errors import RemoteError
from merveil.protocols.identity import Coordinator, Identity
from merveil.protocols.ledger import Ledger
from merveil.protocols.policy import Policy
from merveil.protocols.registry import get

LIMIT = 1 << 20  # bytes of a request
PHASE_SECONDS = 30.0  # for who says nothing; who is known to be gone is not waited for


class Service:
    """One round. tokens: secret of a member -> its roster index."""

    def __init__(self, session, tokens: dict[str, int]) -> None:
        self.session, self.tokens = session, tokens
        self.outbox: dict[int, list[bytes]] = {i: [] for i in tokens.values()}
        self.heard: set[int] = set()  # in this phase
        self.gone: set[int] = set()
        self.done = asyncio.Event()
        self.deadline = time.monotonic() + PHASE_SECONDS
        session.start()

    def spread(self, frames) -> None:
        """Queue the server's frames; a new phase has a new deadline."""
        for frame in frames:
            self.outbox[frame.to].append(frame.encode())
            self.deadline, self.heard = time.monotonic() + PHASE_SECONDS, set()
        if self.session.phase.value == "DONE":
            self.done.set()

    async def clock(self) -> None:
        """Who has not answered when the time is up, or when all who are still here have, is a dropout."""
        while not self.done.is_set():
            await asyncio.sleep(0.05)
            all_here = self.gone and self.heard >= set(self.outbox) - self.gone
            if all_here or time.monotonic() > self.deadline:
                self.deadline, self.heard = time.monotonic() + PHASE_SECONDS, set()
                self.spread(self.session.close_phase())

    async def handle(self, reader, writer) -> None:
        """One request: POST /frames with Authorization and Content-Length."""
        try:
            head = (
                (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PHASE_SECONDS))
                .decode("latin-1")
                .split("\r\n")
            )
            fields = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:])}
            member = self.tokens.get(fields.get("authorization", ""))
            size = int(fields.get("content-length", "0"))
            if head[0].split()[:2] != ["POST", "/frames"] or member is None or size > LIMIT:
                status, body = "403 Forbidden", b""
            else:
                status, body = self.answer(
                    member, await asyncio.wait_for(reader.readexactly(size), PHASE_SECONDS)
                )
        except (ValueError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            status, body = "400 Bad Request", b""
        state = self.session.phase.value
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nX-Phase: {state}\r\n".encode())
        writer.write(b"Connection: close\r\n\r\n" + body)
        await writer.drain()
        writer.close()

    def answer(self, member: int, body: bytes) -> tuple[str, bytes]:
        try:
            for data in unpack_list(body):
                self.heard.add(member)
                self.spread(self.session.receive(member, data))
        except RemoteError as error:  # this member's fault, and nobody else's
            return f"422 {error.code.name if error.code else 'refused'}", b""
        waiting, self.outbox[member] = self.outbox[member], []
        return "200 OK", pack_list(waiting)


def take_part(port: int, context: ssl.SSLContext, token: str, session, codes, leave_at: str = "") -> None:
    """A site's whole part: post what the session gives, hand it what comes back."""
    frames = [*session.start(), *session.submit(codes)]
    while session.phase.value not in ("DONE", leave_at):
        link = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=PHASE_SECONDS)
        link.request("POST", "/frames", pack_list([f.encode() for f in frames]), {"Authorization": token})
        response = link.getresponse()
        body, frames = response.read(), []
        if response.status != 200:
            raise ConnectionError(f"the service answered {response.status} {response.reason}")
        for data in unpack_list(body):
            frames += session.receive(0, data)
        if not frames:
            if response.getheader("X-Phase") == "DONE":
                return
            time.sleep(0.05)
    if session.phase.value == "DONE":  # the last answer still has to leave
        link = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=PHASE_SECONDS)
        link.request("POST", "/frames", pack_list([f.encode() for f in frames]), {"Authorization": token})
        link.getresponse().read()


async def main(folder: Path) -> None:
    certificate = new_certificate(folder, ["127.0.0.1"])
    coordinator, now = Coordinator.generate(), int(time.time())
    people = [Identity.generate(f"site-{i}") for i in range(1, 6)]
    roster = coordinator.sign([p.member for p in people], serial=1, not_before=now - 60, expires=now + 3600)
    params = get("secagg").params(cohort=5, dim=1000, bits=20, max_weight=64)
    task = {"params": params, "roster": roster, "model_hash": bytes(32), "config_hash": bytes(32), "round": 1}
    tokens = [secrets.token_urlsafe(32) for _ in people]
    service = Service(merveil.server_session("secagg", **task), {t: i for i, t in enumerate(tokens, 1)})
    server = await asyncio.start_server(
        service.handle, "127.0.0.1", 0, ssl=server_context(certificate, folder / "tls.key")
    )
    port, parts = server.sockets[0].getsockname()[1], []
    for i, (person, token) in enumerate(zip(people, tokens), 1):
        own = {"identity": person, "policy": Policy(coordinator.anchor), "ledger": Ledger()}
        session = merveil.client_session("secagg", **own, **task)
        codes = Codec(params).encode(np.full(1000, i / 10), weight=i)
        leave = "CHECK" if i == 3 else ""  # site-3 vanishes before its masked vector is posted
        part = asyncio.to_thread(take_part, port, site_context(certificate), token, session, codes, leave)
        parts.append(asyncio.create_task(part))
        if leave:  # its thread ends here; elsewhere a lost connection or the phase's time tells the service
            parts[-1].add_done_callback(lambda _, i=i: service.gone.add(i))
    clock = asyncio.create_task(service.clock())
    await asyncio.gather(service.done.wait(), *parts)
    clock.cancel()
    server.close()
    outcome = service.session.result()
    mean = Codec(params).decode(outcome.codes, len(outcome.survivors))
    print(f"survivors {outcome.survivors}, mean {mean.value[0]:.4f}, weight {mean.weight}")
    assert outcome.survivors == (1, 2, 4, 5) and abs(mean.value[0] - 4.6 / 12) < 1e-3


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        asyncio.run(main(Path(place)))
