"""A federation on loopback in one process: the server in a thread, each site in another."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed: pip install 'merveil[mer]'")

from merveil.fl.clients import Client
from merveil.fl.deploy.config import ServerSettings, SiteSettings
from merveil.fl.deploy.member import Member
from merveil.fl.deploy.server import Server
from merveil.fl.deploy.site import Site
from merveil.fl.deploy.tls import new_certificate
from merveil.fl.deploy.work import Trainer
from merveil.fl.driver import Federation, Run
from merveil.fl.federation import PUBLIC, ROSTER, Folder
from merveil.fl.files import write_bytes
from merveil.fl.keys import save_identity
from merveil.fl.ledger import FileStore
from merveil.fl.model import load_model
from merveil.fl.options import resolve
from merveil.fl.runs import RunLog
from merveil.mer.data.archive import make_archive
from merveil.protocols.identity import Identity
from merveil.protocols.ledger import Ledger

SECONDS = (
    120.0  # the longest that a test waits for anything: a bound for failures, never what a test is about
)


class Stopped(Exception):
    """A site's process was killed."""


class Gone(Site):
    """A site that is killed at a reply: `when` takes the tag and says before or after it is sent, or no."""

    when: Callable[[str], str] = staticmethod(lambda tag: "")  # type: ignore[assignment]

    def _reply(self, link: Any, message: Any, done: Any) -> None:
        fate = self.when(message.text("tag"))
        if fate != "before":
            super()._reply(link, message, done)
        if fate:
            raise Stopped(fate)


@dataclass
class World:
    """server_home, homes: as on disk. archives: one a site, in roster order."""

    root: Path
    server_home: Path
    homes: list[Path]
    archives: list[Any]
    settings: ServerSettings
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(32))
    sites: "list[Future[str]]" = field(default_factory=list)
    server: Server | None = None
    closed: bool = False

    def site(self, i: int, kind: type[Site] = Site, **changes: Any) -> Site:
        """Site i, from 0."""
        assert self.server is not None
        home = self.homes[i]
        given = SiteSettings(
            server=f"127.0.0.1:{self.server.port}",
            home=home,
            data="",
            certificate=self.server_home / "tls.crt",
            retry_seconds=0.2,
        )
        member = Member.load(home)
        log = RunLog(verbosity=-1, file=home / "log.txt")
        return kind(member, replace(given, **changes), Trainer(self.archives[i], member.identity.name), log)

    def start_server(self, **changes: Any) -> None:
        self.settings = replace(self.settings, **changes)
        self.server = Server(self.settings, RunLog(verbosity=-1))
        self.serving = self.pool.submit(self.server.run)
        self.until(lambda: self.server is not None and self.server.port > 0)

    def start_site(self, site: Site) -> "Future[str]":
        self.sites.append(self.pool.submit(site.run, self._pause))
        return self.sites[-1]

    def _pause(self, seconds: float) -> None:
        """Between two dials; a test that has ended stops its sites."""
        if self.closed:
            raise Stopped("the test is over")
        time.sleep(seconds)

    def until(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not true():
            assert time.monotonic() < deadline and not self.serving.done(), "waited too long"
            time.sleep(0.01)

    def finish(self) -> dict[str, Any]:
        """Wait for the server's end and give its result; its error, or an unexpected one of a site, is
        raised."""
        result = self.serving.result(SECONDS)
        for site in self.sites:
            error = site.exception(SECONDS)
            if error is not None and not isinstance(error, Stopped):
                raise error
        return result

    def connected(self, i: int) -> None:
        """Wait until site i has logged in."""
        log = self.homes[i] / "log.txt"
        self.until(lambda: log.exists() and "connected to" in log.read_text())

    def model(self) -> np.ndarray:
        return load_model(self.settings.run).params

    def in_process(self) -> np.ndarray:
        """The model of the same clients in one process under the same options."""
        fields = ("x", "y", "dataset", "subject", "clip")
        merged: dict[str, list[Any]] = {name: [] for name in fields}
        clients, at = [], 0
        for i, archive in enumerate(self.archives):
            for name in fields:
                merged[name].append(getattr(archive, name))
            merged["dataset"][-1] = np.array([f"site-{i + 1}-{d}" for d in archive.dataset])
            clients.append(Client(f"site-{i + 1}", np.arange(at, at + archive.n)))
            at += archive.n
        whole = make_archive(**{name: np.concatenate(parts) for name, parts in merged.items()})
        federation = Federation(whole, [Run("", tuple(clients))], self.settings.options)
        state = federation.start()
        while state.rounds < self.settings.options.rounds:
            state, _ = federation.advance(state)
        return state.params[0]

    def lines(self) -> list[dict[str, Any]]:
        from merveil.fl.runs import read_metrics

        return read_metrics(self.settings.run)

    def log(self) -> str:
        return (self.settings.run / "log.txt").read_text()


def make_world(root: Path, archives: list[Any], **options: Any) -> World:
    folder = Folder.init(root / "hq", None)
    coordinator = folder.coordinator(None)
    homes = []
    for i in range(len(archives)):
        home = root / f"site-{i + 1}"
        home.mkdir()
        identity = Identity.generate(home.name)
        save_identity(home / "identity.key", identity)
        write_bytes(
            home / "request.bin", identity.request(folder.invitation.federation, folder.invitation.agree)
        )
        with FileStore(home / "ledger", create=True) as store:
            Ledger(store)
        folder.add(coordinator, home / "request.bin")
        homes.append(home)
    roster = folder.sign(coordinator, days=30, max_rounds=1000)
    server = root / "server"
    server.mkdir()
    for home in [server, *homes]:
        write_bytes(home / PUBLIC, folder.invitation.encode())
        write_bytes(home / ROSTER, roster.data)
    new_certificate(server, ["127.0.0.1"])
    chosen = {"rounds": 2, "scheme": "secagg", "max_weight": 16, **options}
    settings = ServerSettings(
        listen="127.0.0.1:0",
        home=server,
        run=root / "run",
        certificate=server / "tls.crt",
        key=server / "tls.key",
        gather_seconds=SECONDS,  # nobody is a dropout because the machine is busy
        wait_seconds=SECONDS,
        phase_seconds=SECONDS,
        train_seconds=SECONDS,
        grace_seconds=0.3,
        options=resolve(chosen),
    )
    return World(root, server, homes, archives, settings)


@pytest.fixture
def world(tmp_path: Path, toy_builder: Any) -> Iterator[Callable[..., World]]:
    """`world(sites=5, **options)`: a federation with toy clips, two persons a site."""
    made = []

    def make(sites: int = 5, **options: Any) -> World:
        archives = [toy_builder(persons=2, clips=3 + i, seed=i) for i in range(sites)]
        made.append(make_world(tmp_path, archives, **options))
        return made[-1]

    yield make
    for found in made:
        found.closed = True
        found.pool.shutdown(wait=False, cancel_futures=True)


@pytest.fixture
def gone() -> type[Gone]:
    return Gone
