"""`merveil federation`: a coordinator's keys and roster, a member's identity. No secret is ever printed."""

import argparse
import getpass
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from merveil.cli import OK, print_json, say
from merveil.fl.federation import PUBLIC, ROSTER, Folder, load_roster
from merveil.fl.files import write_bytes
from merveil.fl.keys import Invitation, is_sealed, save_identity
from merveil.fl.ledger import FileStore
from merveil.protocols.errors import LocalError
from merveil.protocols.identity import Identity, Roster
from merveil.protocols.ledger import Ledger

HELP = "identities and the signed roster of a federation"
IDENTITY, REQUEST, LEDGER = "identity.key", "request.bin", "ledger"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    sub = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(verb: str, line: str, act: Callable[[argparse.Namespace], int], /, **places: str) -> Any:
        child = sub.add_parser(verb, help=line, description=line)
        for place, text in places.items():
            child.add_argument(place, help=text)
        child.set_defaults(act=act)
        return child

    folder = "the coordinator's folder"
    init = action("init", "a coordinator's keys and an invitation for members", _init, folder=folder)
    own = action("identity", "a member's keys, its request to the coordinator and its ledger", _identity,
                 folder="the member's own folder")  # fmt: skip
    own.add_argument("--name", required=True, help="the member's name in the roster, 1 to 64 bytes")
    own.add_argument("--federation", required=True, help="the coordinator's federation.json")
    add = action("add", "admit a member by its request file", _add, folder=folder, request="its request.bin")
    action("remove", "drop a member from the next roster", _remove, folder=folder, name="its name")
    turn = action("rotate", "replace a member's keys by those of a new request", _rotate, folder=folder,
                  request="its new request.bin")  # fmt: skip
    sign = action("sign", "sign a roster: next serial, new beacon", _sign, folder=folder)
    sign.add_argument("--days", type=int, default=90, help="how long it is valid (default 90)")
    sign.add_argument("--max-rounds", type=int, default=10_000, help="rounds it may serve (default 10000)")
    show = action("show", "a table of the members, with a fingerprint to compare by voice", _show,
                  path="a coordinator's folder, or a roster file with --federation")  # fmt: skip
    test = action("verify", "check a roster's signature, keys and period", _verify, path="the roster file")
    for child in (show, test):
        child.add_argument("--federation", help="federation.json of the coordinator you trust")
        child.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    for child in (init, own):
        child.add_argument("--force", action="store_true", help="replace what is there, keys included")
        child.add_argument("--passphrase", action="store_true", help="ask for a passphrase to seal the key")
    for child in (init, own, add, turn, sign):
        child.add_argument("--passphrase-file", help="read the passphrase from this file's first line")


def run(args: argparse.Namespace) -> int:
    """0 done, 2 bad input, 3 a roster that must not be used (signature, keys, period)."""
    return int(args.act(args))


def _passphrase(args: argparse.Namespace, wanted: bool, confirm: bool = False) -> str | None:
    if args.passphrase_file:
        lines = Path(args.passphrase_file).read_text(encoding="utf-8").splitlines()
        return lines[0] if lines else ""
    if not wanted:
        return None
    if not sys.stdin.isatty():
        raise LocalError("the key is sealed and nobody is here to ask: give --passphrase-file")
    phrase = getpass.getpass("passphrase: ")
    if confirm and getpass.getpass("again: ") != phrase:
        raise LocalError("the two passphrases differ")
    return phrase


def _init(args: argparse.Namespace) -> int:
    folder = Folder.init(Path(args.folder), _passphrase(args, args.passphrase, True), force=args.force)
    say(f"federation {folder.invitation.federation.hex()[:16]}")
    say(f"give {folder.path / PUBLIC} to the members; keep the rest of the folder off-line")
    return OK


def _identity(args: argparse.Namespace) -> int:
    """Keys, request and ledger; nothing is written where anything of it is there, unless forced."""
    home, invitation = Path(args.folder), Invitation.load(Path(args.federation))
    home.mkdir(parents=True, exist_ok=True)
    found = [home / n for n in (IDENTITY, REQUEST, LEDGER) if (home / n).exists()]
    if found and not args.force:
        raise LocalError(f"{found[0]} exists: choose another folder, or --force for new keys")
    if (home / LEDGER).exists():
        FileStore(home / LEDGER).close()  # refuses while a running party holds it
    identity = Identity.generate(args.name)
    save_identity(home / IDENTITY, identity, _passphrase(args, args.passphrase, True), force=args.force)
    request = identity.request(invitation.federation, invitation.agree)
    write_bytes(home / REQUEST, request)
    # new keys are a new party, so an earlier ledger protects nothing any more
    (home / LEDGER).unlink(missing_ok=True)
    with FileStore(home / LEDGER, create=True) as store:
        Ledger(store)
    say(f"send {home / REQUEST} to the coordinator; keep {home / IDENTITY} and {home / LEDGER} here")
    return OK


def _coordinator(args: argparse.Namespace, folder: Folder) -> Any:
    sealed = is_sealed(folder.path / "coordinator.key")
    return folder.coordinator(_passphrase(args, sealed))


def _add(args: argparse.Namespace) -> int:
    folder = Folder.load(Path(args.folder))
    member = folder.add(_coordinator(args, folder), Path(args.request))
    say(f"{member.name} is member {len(folder.members)}; sign a roster to put it into force")
    return OK


def _remove(args: argparse.Namespace) -> int:
    folder = Folder.load(Path(args.folder))
    folder.remove(args.name)
    say(f"{args.name} is removed; sign a roster to put it into force")
    return OK


def _rotate(args: argparse.Namespace) -> int:
    folder = Folder.load(Path(args.folder))
    member = folder.rotate(_coordinator(args, folder), Path(args.request))
    say(f"{member.name} has new keys; sign a roster to put them into force")
    return OK


def _sign(args: argparse.Namespace) -> int:
    folder = Folder.load(Path(args.folder))
    roster = folder.sign(_coordinator(args, folder), days=args.days, max_rounds=args.max_rounds)
    if len(roster) < 5:
        say(f"note: {len(roster)} members; the secure schemes' defaults need at least 5")
    say(f"signed serial {roster.serial} with {len(roster)} members, fingerprint {roster.fingerprint()}")
    say(f"give {folder.path / ROSTER} to every member and to the server")
    return OK


def describe(roster: Roster, pending: bool, now: int) -> dict[str, Any]:
    """The JSON of `show` and `verify`: public values only."""
    return {
        "federation": roster.federation.hex(),
        "anchor": roster.anchor.hex(),
        "serial": roster.serial,
        "not_before": roster.not_before,
        "expires": roster.expires,
        "max_rounds": roster.max_rounds,
        "fingerprint": roster.fingerprint(),
        "valid_now": roster.not_before <= now <= roster.expires,
        "pending_changes": pending,
        "members": [
            {"index": i, "name": m.name, "sign_key": m.sign_key.hex(), "agree_key": m.agree_key.hex()}
            for i, m in enumerate(roster.members, 1)
        ],
    }


def _table(found: dict[str, Any]) -> str:
    def day(seconds: int) -> str:
        return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))

    lines = [
        f"federation   {found['federation'][:16]}",
        f"serial       {found['serial']}   fingerprint {found['fingerprint']}",
        f"valid        {day(found['not_before'])} to {day(found['expires'])} UTC"
        + ("" if found["valid_now"] else "   NOT VALID NOW"),
        f"rounds       {found['max_rounds']}",
        "",
        "  i  sign key          agree key         name",
    ]
    for m in found["members"]:
        lines.append(f"{m['index']:3}  {m['sign_key'][:16]}  {m['agree_key'][:16]}  {m['name']}")
    if found["pending_changes"]:
        lines += ["", "members were changed since: sign a new roster"]
    return "\n".join(lines)


def _print(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        print(_table(found))


def _show(args: argparse.Namespace) -> int:
    path, now = Path(args.path), int(time.time())
    if not path.exists():
        raise LocalError(f"{path} does not exist")
    if not path.is_dir():
        roster, pending = load_roster(path, _anchor(args)), False
    else:
        folder = Folder.load(path)
        found = folder.roster()
        if found is None:
            names = ", ".join(m.name for m in folder.members) or "nobody"
            raise LocalError(f"no roster was signed yet; admitted so far: {names}")
        roster, pending = found, list(found.members) != folder.members
    _print(describe(roster, pending, now), args.json)
    return OK


def _anchor(args: argparse.Namespace) -> bytes:
    if not args.federation:
        raise LocalError("name the coordinator you trust: --federation federation.json")
    return Invitation.load(Path(args.federation)).anchor


def _verify(args: argparse.Namespace) -> int:
    now = int(time.time())
    roster = load_roster(Path(args.path), _anchor(args))
    if Invitation.load(Path(args.federation)).federation != roster.federation:
        raise LocalError("the roster is of another federation of the same coordinator")
    roster.check_time(now)
    _print(describe(roster, False, now), args.json)
    return OK
