"""`merveil site`: one member's part in a federation. It dials out; nothing dials it."""

import argparse
import getpass
import os
import signal
import sys
from pathlib import Path
from typing import Any

from merveil.cli import ABORTED, FAILED, OK, print_json, say

HELP = "one member's part in a federation: dial the server, train here, send frames"
DEFAULT = Path("federation.toml")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--config", type=Path, default=DEFAULT, metavar="F.toml", help=f"settings (default {DEFAULT})")
    add(
        "--check",
        action="store_true",
        help="keys, roster, ledger, privacy, disk, data, TLS, clock, policy; then stop",
    )
    add("--passphrase-file", help="read the key's passphrase from this file's first line")
    add("--json", action="store_true", help="print one JSON object on stdout")
    add("-v", "--verbose", action="store_true", help="say every step")
    add("-q", "--quiet", action="store_true", help="say warnings only")
    add("--log-format", choices=("text", "json"), default="text", help="of progress, on stderr")


def run(args: argparse.Namespace) -> int:
    """0 the training is over (or all checks passed), 1 a check or the login failed, 2 bad input, 3 the
    server gave up, 130 interrupted (start it again)."""
    from merveil.fl.deploy.config import read_site
    from merveil.fl.deploy.member import IDENTITY

    settings = read_site(args.config)
    passphrase = _passphrase(args, settings.home / IDENTITY)
    if args.check:
        return _check(args, settings, passphrase)
    from merveil.cli.data import open_data
    from merveil.fl.deploy import private
    from merveil.fl.deploy.member import Member
    from merveil.fl.deploy.server import OVER, OVER_SPENT
    from merveil.fl.deploy.site import Site
    from merveil.fl.deploy.work import Trainer
    from merveil.fl.gate import FILE, ModelGate
    from merveil.fl.runs import RunLog

    log = RunLog(verbosity=0 if args.quiet else 2 if args.verbose else 1, as_json=args.log_format == "json")
    member = Member.load(settings.home, passphrase)
    gate = ModelGate(settings.home / FILE, settings.architecture)
    trainer = Trainer(open_data(_source(args.config, settings.data)), member.identity.name, gate)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        site = Site(member, settings, trainer, log)
        last = site.run()
    finally:
        signal.signal(signal.SIGTERM, before)
    if args.json:
        told = {"member": member.identity.name, "rounds": site.rounds, "last": last}
        print_json({**told, "privacy": private.spent(member)})
    elif not args.quiet:
        noise = _spent(private.spent(member))
        say(f"{member.identity.name}: took part in {site.rounds} rounds; {last}{noise}")
    return OK if last in (OVER, OVER_SPENT) else ABORTED


def _spent(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    return (
        f"; this site's privacy: epsilon {found['epsilon']:.4g} of {found['target_epsilon']:g} at delta "
        f"{found['delta']:g} in {found['uploads']} uploads"
    )


def _source(config: Path, data: str) -> str:
    """An archive is named relative to the settings' file; a made-up source as it stands."""
    path = config.parent / data
    return str(path) if path.exists() else data


def _check(args: argparse.Namespace, settings: object, passphrase: str | None) -> int:
    from merveil.cli.data import open_data
    from merveil.fl.deploy.check import check_site, failed
    from merveil.fl.deploy.config import SiteSettings

    assert isinstance(settings, SiteSettings)
    checks = check_site(settings, passphrase, lambda data: open_data(_source(args.config, data)))
    if args.json:
        rows = [{"name": c.name, "ok": c.ok, "text": c.text} for c in checks]
        print_json({"ok": not failed(checks), "checks": rows})
    else:
        for c in checks:
            print(f"{'ok    ' if c.ok else 'FAILED'} {c.name:8} {c.text}")
    return FAILED if failed(checks) else OK


def _passphrase(args: argparse.Namespace, key: Path) -> str | None:
    from merveil.fl.keys import is_sealed
    from merveil.protocols.errors import LocalError

    place = args.passphrase_file or os.environ.get("MERVEIL_PASSPHRASE_FILE")
    if place:
        lines = Path(place).read_text(encoding="utf-8").splitlines()
        return lines[0] if lines else ""
    if not is_sealed(key):
        return None
    if not sys.stdin.isatty():
        raise LocalError("the key is sealed and nobody is here to ask: give --passphrase-file")
    return getpass.getpass("passphrase: ")
