"""A site: it dials the server, shows who it is, and takes part in rounds; nothing ever dials it.

What a step gave is written to the site's own folder before it is sent: the sealed session and the frames that
go out. So a site that is killed goes on where it was when it is started again, with the same bytes and never
with a second vector; the ledger refuses every other way. Between two steps no key of a round is in memory.
"""

import fcntl
import os
import random
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from merveil.fl.deploy import private, tls
from merveil.fl.deploy.channel import (
    BEFORE_LOGIN,
    NONCE,
    SITE_PURPOSE,
    VERSION,
    Kind,
    Message,
    pack,
    pack_list,
    proof_fields,
    size_of,
    unpack,
    unpack_list,
)
from merveil.fl.deploy.config import SiteSettings, address
from merveil.fl.deploy.member import Member
from merveil.fl.deploy.step import Step, begin, go_on
from merveil.fl.deploy.task import Task
from merveil.fl.deploy.work import Trainer, Work
from merveil.fl.dp_ledger import BudgetSpent
from merveil.fl.keys import write_private
from merveil.fl.runs import RunLog
from merveil.mer.errors import InputError
from merveil.protocols.codec import Codes
from merveil.protocols.dp.discrete import Mechanism
from merveil.protocols.errors import AbortCode, Aborted, LocalError, RemoteError
from merveil.protocols.primitives.sign import sign
from merveil.protocols.registry import get

SESSION, LOCK = "session.bin", "site.lock"
SPENT = "BUDGET_SPENT: this site's own privacy budget allows no further upload"
CONNECT_SECONDS, LOGIN_SECONDS = 10.0, 20.0


class Link:
    """A TLS connection to the server, before or after login. OSError where it breaks."""

    def __init__(self, settings: SiteSettings) -> None:
        host, port = address(settings.server)
        context = tls.site_context(settings.certificate)
        self._limit = settings.max_megabytes * 1_000_000
        raw = socket.create_connection((host, port), CONNECT_SECONDS)
        try:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
                if hasattr(socket, name):
                    raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
            self._socket = context.wrap_socket(raw, server_hostname=settings.server_name or host)
        except BaseException:
            raw.close()
            raise
        self._socket.settimeout(LOGIN_SECONDS)
        der = self._socket.getpeercert(binary_form=True)
        assert der is not None  # the context requires a certificate
        self.certificate = tls.fingerprint(der)

    def login(self, member: Member) -> Message:
        """Show who this is; the server's WELCOME. RemoteError: not a server of this federation."""
        hello = self.receive(BEFORE_LOGIN)
        if hello.kind is not Kind.HELLO or hello.number("version") != VERSION:
            raise RemoteError("the server speaks another version of the channel", (0,))
        own = os.urandom(NONCE)
        server_nonce = hello.data("nonce", NONCE)
        fields = proof_fields(member.roster, member.index, server_nonce, own, self.certificate)
        proof = sign(member.identity.sign_key, SITE_PURPOSE, *fields)
        head = {"index": member.index, "nonce": own.hex(), "proof": proof.hex(), "version": VERSION}
        self.send(pack(Kind.LOGIN, {**head, "roster": member.roster.hash.hex()}))
        welcome = self.receive()
        if welcome.kind is Kind.BYE:
            raise RemoteError(f"the server refused the login: {welcome.head.get('why')}", (0,))
        if welcome.kind is not Kind.WELCOME:
            raise RemoteError("the server did not answer the login", (0,))
        self._socket.settimeout(None)
        return welcome

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self, limit: int | None = None) -> Message:
        """The next message. ConnectionError at its end, RemoteError for bytes that are none."""
        size = size_of(self._exactly(4), limit or self._limit)
        return unpack(self._exactly(size))

    def _exactly(self, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            part = self._socket.recv(min(size - len(found), 1 << 20))
            if not part:
                raise ConnectionResetError("the server closed the connection")
            found += part
        return bytes(found)

    def close(self) -> None:
        self._socket.close()


@dataclass(frozen=True)
class Asleep:
    """A round on disk: what it is about, the sealed session, and the frames that were sent last."""

    task: bytes
    head: str
    payload: bytes = field(repr=False)
    exchange: int = 0
    snapshot: bytes = field(default=b"", repr=False)
    outbox: tuple[bytes, ...] = field(default=(), repr=False)

    def save(self, path: Path) -> None:
        head = self.head.encode()
        number = self.exchange.to_bytes(4, "big")
        parts = [self.task, head, self.payload, number, self.snapshot, *self.outbox]
        write_private(path, pack_list(parts), force=True)

    @classmethod
    def load(cls, path: Path) -> "Asleep | None":
        """None where there is none, or one that a crash damaged: then the round is lost, and only it."""
        if not path.exists():
            return None
        try:
            task, head, payload, number, snapshot, *outbox = unpack_list(path.read_bytes())
            return cls(task, head.decode(), payload, int.from_bytes(number, "big"), snapshot, tuple(outbox))
        except (RemoteError, ValueError):
            return None


class Site:
    """One member's part in a federation, until the server says that it is over."""

    def __init__(self, member: Member, settings: SiteSettings, trainer: Trainer, log: RunLog) -> None:
        self._member, self._settings, self._trainer, self._log = member, settings, trainer, log
        self._path = settings.home / SESSION
        self.rounds = 0

    def run(self, sleep: Callable[[float], None] = time.sleep) -> str:
        """Take part until the server ends; returns its last word. Connections that break are made anew.

        LocalError, Aborted and RemoteError of the login pass: with these settings it will not work.
        LocalError too where another process takes part from the same folder.
        """
        with _alone(self._settings.home):
            return self._dial(sleep)

    def _dial(self, sleep: Callable[[float], None]) -> str:
        pause = 0.5
        while True:
            try:
                with closing(Link(self._settings)) as link:
                    welcome = link.login(self._member)
                    pause = 0.5
                    self._log.info(f"connected to {self._settings.server} as {self._member.identity.name!r}")
                    self._log.detail(f"the server is at round {welcome.head.get('round')}")
                    return self._serve(link)
            except ssl.SSLCertVerificationError as error:
                raise LocalError(
                    f"{self._settings.server} is not the server of {self._settings.certificate}: "
                    f"{error.verify_message}"
                ) from error
            except OSError as error:
                self._log.info(f"no connection to {self._settings.server} ({_reason(error)}); trying again")
            sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, self._settings.retry_seconds)

    def _serve(self, link: Link) -> str:
        while True:
            message = link.receive()
            if message.kind is Kind.BYE:
                last = str(message.head.get("why", ""))
                # Quoted and cut: a server's text makes no line of this log.
                self._log.info(f"the server's last word: {last[:300]!r}")
                return last
            if message.kind is Kind.TASK:
                self._reply(link, message, self._invited(message))
            elif message.kind is Kind.FRAMES:
                self._reply(link, message, self._heard(message))

    def _reply(self, link: Link, message: Message, done: Step) -> None:
        head = {"tag": message.text("tag")}
        if done.why:
            head |= {"code": done.code.name if done.code else "LOCAL", "why": done.why[:300]}
            self._log.warn(f"{message.text('tag')}: {done.why}")
        if done.spent:
            head["spent"] = True
        link.send(pack(Kind.REPLY, head, pack_list(done.frames)))

    # Rounds

    def _invited(self, message: Message) -> Step:
        """A new attempt, or the one that is on disk already: then what was sent is sent again."""
        asleep = Asleep.load(self._path)
        text = message.text("task").encode()
        if asleep is not None and asleep.task == text:
            return Step(asleep.outbox if asleep.exchange == 0 else ())
        task = Task.decode(text)
        head = message.text("work")
        self._log.info(f"round {task.round}, attempt {task.attempt}: {task.scheme}, {task.cohort} members")
        state = Asleep(text, head, message.payload)
        return self._guarded(lambda: self._begin(task, state))

    def _begin(self, task: Task, state: Asleep) -> Step:
        work = Work.decode(state.head, state.payload)
        work.check_announced(task)
        mechanism = private.judge(self._member, task, work)
        if mechanism is not None:  # known now rather than after the keys were exchanged
            private.afford(self._member, task, mechanism)
        codes = self._codes(task, work, mechanism) if self._due(task, 0) else None
        return self._keep(state, 0, begin(self._member, task, codes, mechanism=mechanism))

    def _heard(self, message: Message) -> Step:
        """The server's frames of an exchange: the next one is a step, the last one again is a repeat."""
        asleep, exchange = Asleep.load(self._path), message.number("exchange")
        if asleep is None or message.text("task").encode() != asleep.task:
            return Step((), b"", AbortCode.STATE_ROLLBACK, "this site is not in that round")
        if exchange == asleep.exchange:
            return Step(asleep.outbox)
        if exchange != asleep.exchange + 1:
            return Step((), b"", AbortCode.STATE_ROLLBACK, "this site is at another exchange of the round")
        task = Task.decode(asleep.task)
        return self._guarded(lambda: self._go_on(task, asleep, exchange, unpack_list(message.payload)))

    def _go_on(self, task: Task, state: Asleep, exchange: int, inbound: list[bytes]) -> Step:
        work = Work.decode(state.head, state.payload)
        mechanism = private.judge(self._member, task, work)
        codes = self._codes(task, work, mechanism) if self._due(task, exchange) else None
        done = go_on(self._member, task, state.snapshot, inbound, codes, mechanism=mechanism)
        return self._keep(state, exchange, done)

    def _due(self, task: Task, exchange: int) -> bool:
        return get(task.scheme).phases[exchange].value == task.vector_phase

    def _codes(self, task: Task, work: Work, mechanism: Mechanism | None) -> Codes:
        """The vector; one with noise is paid for, on disk, before any session gets it."""
        begun = time.monotonic()
        if mechanism is None:
            codes = self._trainer.codes(task, work, self._settings.max_cut)
        else:
            codes = self._trainer.noisy_codes(task, work, mechanism, private.rotation(task))
            private.pay(self._member, task, mechanism)
        self._log.detail(f"round {task.round}: trained in {time.monotonic() - begun:.2f} s")
        return codes

    def _keep(self, state: Asleep, exchange: int, done: Step) -> Step:
        """Write what the step gave before it leaves. A finished session keeps its last frames for a
        repeat."""
        if done.aborted:
            self._path.unlink(missing_ok=True)
            return done
        if not done.snapshot:
            self.rounds += 1
        kept = Asleep(state.task, state.head, state.payload, exchange, done.snapshot, done.frames)
        kept.save(self._path)
        return done

    def _guarded(self, move: Callable[[], Step]) -> Step:
        """A step that this site refuses is told by its code; the text of a local fault stays here."""
        try:
            return move()
        except (Aborted, RemoteError) as error:
            self._path.unlink(missing_ok=True)
            return Step((), b"", error.code or AbortCode.MALFORMED_FRAME, str(error))
        except BudgetSpent as error:  # its figures stay here
            self._log.warn(f"BUDGET_SPENT: this site sits the round out: {error}")
            return Step((), b"", AbortCode.PARAMS_BELOW_FLOOR, SPENT, spent=True)
        except (LocalError, InputError) as error:
            self._log.warn(f"this site sits the round out: {error}")
            code = getattr(error, "code", None)
            return Step((), b"", code, "refused at the site; its log says why")
        except OSError as error:  # of the disk: the step never touches the network
            self._log.warn(f"this site sits the round out: {_reason(error)} ({error.filename})")
            return Step((), b"", None, "the site could not write; its log says why")


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Hold the folder's lock; the system lets go of it when the process ends, however it ends."""
    with (home / LOCK).open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LocalError(f"another process takes part from {home}: a member runs once") from None
        yield


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
