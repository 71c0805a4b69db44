"""Many sites, many rounds, random kills: every sum checked, handles and memory of the server counted.

    python benchmarks/load.py [--sites 50] [--rounds 100] [--size 10000] [--kill 0.01] [--scheme secagg+]

The server's hub and rounds run in this process, the sites as threads of one other process, each with its own
folder, ledger and TLS connection. At every reply a site dies with the given chance, before or after it is
sent, and starts again from its folder half a second later. Site i submits i + 1 at its own coordinate and
the round's number at the last, so a lost, doubled or foreign vector shows in the sum. The seed makes the
kills, not the keys.
"""

import argparse
import asyncio
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from merveil.fl.deploy import tls
from merveil.fl.deploy.config import ServerSettings, SiteSettings
from merveil.fl.deploy.hub import Hub
from merveil.fl.deploy.member import Member
from merveil.fl.deploy.rounds import Done, Rounds
from merveil.fl.deploy.site import Site
from merveil.fl.deploy.task import Task
from merveil.fl.deploy.work import Work
from merveil.fl.federation import PUBLIC, ROSTER, Folder
from merveil.fl.files import write_bytes
from merveil.fl.keys import save_identity
from merveil.fl.ledger import FileStore
from merveil.fl.options import resolve
from merveil.fl.runs import RunLog
from merveil.protocols.codec import Codec, Codes
from merveil.protocols.errors import Aborted
from merveil.protocols.identity import Identity
from merveil.protocols.ledger import Ledger

BITS = 16
CLIP = float((1 << (BITS - 1)) - 1)  # one grid step is 1, so whole numbers travel as they are


class Killed(Exception):
    """The site's process would be gone here."""


class Testimony:
    """In the place of a trainer: a vector that says whose it is and of which round."""

    def __init__(self, index: int) -> None:
        self.index = index

    def codes(self, task: Task, work: Work, max_cut: float) -> Codes:
        vector = np.zeros(task.dim)
        vector[self.index] = self.index + 1
        vector[-1] = task.round
        return Codec(task.params()).encode(vector)


class Mortal(Site):
    chance = 0.0

    def _reply(self, link: Any, message: Any, done: Any) -> None:
        fate = self.coins.random()
        if fate < self.chance / 2:
            raise Killed
        super()._reply(link, message, done)
        if fate < self.chance:
            raise Killed


def live(root: Path, index: int, port: int, chance: float, seed: int, count: list[int]) -> None:
    """A site through all its lives."""
    home, coins = root / f"site-{index}", random.Random(f"{seed}/{index}")
    settings = SiteSettings(
        server=f"127.0.0.1:{port}", home=home, certificate=root / tls.CERTIFICATE, retry_seconds=1.0
    )
    while True:
        member = Member.load(home)
        site = Mortal(member, settings, Testimony(member.index - 1), RunLog(verbosity=-1))  # type: ignore[arg-type]
        site.chance, site.coins = chance, coins  # type: ignore[attr-defined]
        try:
            site.run()
            return
        except Killed:
            count[0] += 1
            time.sleep(0.5)


def sites(root: Path, number: int, port: int, chance: float, seed: int) -> None:
    """The other process: all sites as threads; at the end one line of JSON."""
    count = [0]
    threads = [
        threading.Thread(target=live, args=(root, i, port, chance, seed, count)) for i in range(number)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"kills": count[0], **usage()}))


def usage() -> dict[str, int]:
    """Open handles and resident megabytes of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "handles": len(os.listdir("/proc/self/fd")),
        "megabytes": pages * os.sysconf("SC_PAGE_SIZE") // 1_000_000,
        "threads": threading.active_count(),
    }


def enrol(root: Path, number: int, scheme: str) -> Any:
    folder = Folder.init(root / "hq", None)
    coordinator = folder.coordinator(None)
    for i in range(number):
        home = root / f"site-{i}"
        home.mkdir()
        identity = Identity.generate(home.name)
        save_identity(home / "identity.key", identity)
        request = identity.request(folder.invitation.federation, folder.invitation.agree)
        write_bytes(home / "request.bin", request)
        with FileStore(home / "ledger", create=True) as store:
            Ledger(store)
        folder.add(coordinator, home / "request.bin")
    roster = folder.sign(coordinator, days=7, max_rounds=10_000)
    for i in range(number):
        write_bytes(root / f"site-{i}" / PUBLIC, folder.invitation.encode())
        write_bytes(root / f"site-{i}" / ROSTER, roster.data)
        write_bytes(root / f"site-{i}" / "policy.toml", f'schemes = ["{scheme}"]\n'.encode())
    tls.new_certificate(root, ["127.0.0.1"])
    return roster


def right(done: Done, size: int, round_: int) -> bool:
    """Whether the sum is exactly that of the survivors it names."""
    expected = np.zeros(size, dtype=np.int64)
    for i in done.outcome.survivors:
        expected[i - 1] = i
    expected[-1] = round_ * len(done.outcome.survivors)
    return bool((done.outcome.codes == expected).all())


async def serve(root: Path, args: argparse.Namespace, roster: Any) -> dict[str, Any]:
    log = RunLog(verbosity=-1, file=root / "log.txt")
    certificate = tls.fingerprint(tls.certificate_der(root / tls.CERTIFICATE))
    hub = Hub(roster, certificate, 64_000_000, log, lambda: {})
    port = await hub.listen("127.0.0.1", 0, tls.server_context(root / tls.CERTIFICATE, root / tls.KEY))
    words = [sys.executable, __file__, "--as-sites", str(root), "--port", str(port)]
    words += ["--sites", str(args.sites), "--kill", str(args.kill), "--seed", str(args.seed)]
    others = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    options = resolve({"scheme": args.scheme})
    settings = ServerSettings(
        gather_seconds=5, wait_seconds=60, phase_seconds=60, train_seconds=60, grace_seconds=args.grace
    )
    rounds = Rounds(hub, roster, settings, log, lambda progress: None)
    found: dict[str, Any] = {"sums": 0, "wrong": 0, "aborted": 0, "survivors": [], "seconds": [], "usage": []}
    most, size = 0, max(args.size, args.sites + 1)
    for number in range(1, args.rounds + 1):
        work = Work("train", number - 1, options, settings.data, b"")
        model, config = work.hashes()

        def make(attempt: int, r: int = number, m: str = model, c: str = config) -> Task:
            return Task(args.scheme, r, attempt, args.sites, size, BITS, CLIP, 1, 0, m, c)

        try:
            done = await rounds.run(make, work)
            found["sums"] += 1
            found["wrong"] += not right(done, size, number)
            found["survivors"].append(len(done.names))
            found["seconds"].append(round(done.seconds, 3))
        except Aborted:
            found["aborted"] += 1
        most = max(most, hub.inbox.qsize())
        if number % max(1, args.rounds // 10) == 0:
            gc.collect()
            found["usage"].append({"round": number, **usage()})
    await hub.close("over")
    out, _ = await asyncio.to_thread(others.communicate, None, 60)
    return {**found, "inbox_bound": hub.inbox.maxsize, "inbox_most": most, "sites": json.loads(out)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sites", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--size", type=int, default=0, help="values of a vector (default: sites + 1)")
    parser.add_argument("--kill", type=float, default=0.01, help="chance of a kill at each reply")
    parser.add_argument("--grace", type=float, default=0.2, help="seconds that a lost site may take")
    parser.add_argument("--scheme", default="secagg+")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--as-sites", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.as_sites:
        sites(args.as_sites, args.sites, args.port, args.kill, args.seed)
        return 0
    with tempfile.TemporaryDirectory() as place:
        begun = time.monotonic()
        found = asyncio.run(serve(Path(place), args, enrol(Path(place), args.sites, args.scheme)))
    found["total_seconds"] = round(time.monotonic() - begun, 1)
    if args.json:
        print(json.dumps(found))
    else:
        low, high = min(found["survivors"], default=0), max(found["survivors"], default=0)
        median = sorted(found["seconds"])[len(found["seconds"]) // 2] if found["seconds"] else 0
        print(f"{args.sites} sites, {args.rounds} rounds of {args.scheme}, {found['sites']['kills']} kills")
        print(f"sums {found['sums']}, wrong {found['wrong']}, aborted {found['aborted']}")
        print(f"survivors {low} to {high}; median round {median} s; all {found['total_seconds']} s")
        for row in (found["usage"][0], found["usage"][-1]):
            print(f"server after round {row['round']}: {row['handles']} handles, {row['megabytes']} MB")
        print(
            f"inbox at most {found['inbox_most']} of {found['inbox_bound']}; sites' process {found['sites']}"
        )
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
