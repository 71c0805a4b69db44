"""`merveil server`: a federated training over sites that dial in; resumes by itself, shows its status."""

import argparse
import signal
from pathlib import Path
from typing import Any

from merveil.cli import OK, print_json, say

HELP = "a federated training over sites that dial in, from a federation.toml"
DEFAULT = Path("federation.toml")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--config", type=Path, default=DEFAULT, metavar="F.toml", help=f"settings (default {DEFAULT})")
    add("--force", action="store_true", help="start the run over instead of going on with it")
    add("--status", action="store_true", help="say where the run is, from its folder, and stop")
    add("--new-certificate", metavar="HOST[,HOST]", help="make tls.key and tls.crt for these names, and stop")
    add("--days", type=int, default=365, help="how long a new certificate is valid (default 365)")
    add("--json", action="store_true", help="print one JSON object on stdout")
    add("-v", "--verbose", action="store_true", help="say every step")
    add("-q", "--quiet", action="store_true", help="say warnings only")
    add("--log-format", choices=("text", "json"), default="text", help="of progress, here and in log.txt")


def run(args: argparse.Namespace) -> int:
    """0 finished, or ended by its privacy budget after some rounds, 2 bad input, 3 gave up after rounds
    without a sum, 130 interrupted (start it again)."""
    from merveil.fl.deploy.config import read_server

    if args.new_certificate:
        return _certificate(args)
    settings = read_server(args.config)
    if args.status:
        return _status(settings.run, args.json)
    from merveil.fl.deploy.server import Server
    from merveil.fl.runs import RunLog

    log = RunLog(verbosity=0 if args.quiet else 2 if args.verbose else 1, as_json=args.log_format == "json")
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        result = Server(settings, log).run(force=args.force)
    finally:
        signal.signal(signal.SIGTERM, before)
    if args.json:
        print_json(result)
    elif not args.quiet:
        size = f"{result['rounds']} rounds over {result['clients']} sites ({result['scheme']})"
        model = f"{result['model']} {result['model_sha256'][:12]}"
        say(f"{result['run']}: {size}, model {model}, {result['seconds']:.1f} s")
        if result["privacy"]:
            say(f"{result['status']}: {_privacy(result['privacy'])}")
    return OK


def _certificate(args: argparse.Namespace) -> int:
    from merveil.fl.deploy.tls import KEY, new_certificate

    folder = args.config.parent
    hosts = [host.strip() for host in args.new_certificate.split(",")]
    path = new_certificate(folder, hosts, days=args.days, force=args.force)
    say(f"give {path} to every site; keep {folder / KEY} here")
    return OK


def _status(run: Path, as_json: bool) -> int:
    from merveil.fl.deploy.server import read_status

    found = read_status(run)
    if as_json:
        print_json(found)
    else:
        print(_words(found))
    return OK


def _words(found: dict[str, Any]) -> str:
    waiting = ", ".join(found["waiting_for"]) or "nobody"
    noise = (f"privacy     {_privacy(found['privacy'])}",) if found.get("privacy") else ()
    return "\n".join(
        (
            f"rounds      {found['rounds_done']} of {found['rounds']} done, scheme {found['scheme']}",
            f"now         {found['phase']}, protocol round {found['protocol_round']}.{found['attempt']}",
            f"waiting for {waiting}",
            f"connected   {len(found['connected'])} of {found['members']}: {', '.join(found['connected'])}",
            *noise,
        )
    )


def _privacy(found: dict[str, Any]) -> str:
    """Unit, figures, relation and accountant in one line."""
    return (
        f"epsilon {found['epsilon']:.4g} of {found['target_epsilon']:g} at delta {found['delta']:g} spent in "
        f"{found['uploads']} uploads; unit {found['unit']}: {found['protects']}; {found['relation']}; "
        f"{found['accountant']}"
    )
