"""`merveil check`: what an archive or a dataset's folder holds, what was expected, and the first mismatch."""

import argparse
from pathlib import Path
from typing import Any

from merveil.cli import OK, USAGE, print_json, say
from merveil.mer.errors import InputError

SHOWN = 10  # faults on the screen; --json has all
HELP = "what is in an archive or a dataset's folder, and its first fault"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", help="an .npz archive, or the root folder of a dataset")
    parser.add_argument(
        "--layout",
        help="the folder's layout: flow-folder, video-folder, casme2, smic, samm, casme3, mmew, 4dme, dfme",
    )
    add_annotated(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def add_annotated(parser: argparse.ArgumentParser) -> None:
    """The options of annotated sets, shared with `merveil prepare`."""
    parser.add_argument("--classes", help="annotated sets: 3 (default: MEGC 2019) or native (the set's own)")
    parser.add_argument("--labels", metavar="FILE", help="annotated sets: the .xlsx or .csv (default: found)")
    parser.add_argument(
        "--numbering",
        help="annotated sets: frame numbers are those of the files (file), or the first file is the onset "
        "(onset); auto (default) sees which fits",
    )


def annotated(args: argparse.Namespace) -> dict[str, str]:
    """Those of the options that were given."""
    given = {name: getattr(args, name) for name in ("classes", "labels", "numbering")}
    return {name: value for name, value in given.items() if value is not None}


def run(args: argparse.Namespace) -> int:
    """Exit code 0 for valid, 2 with the fault named otherwise (with --json inside the object)."""
    from merveil.mer.data.check import report

    path = Path(args.path)
    found = _folder(path, args) if path.is_dir() else _archive(path, args)
    for notice in found.get("notices", []):
        say(f"note: {notice}")
    if args.json:
        print_json(found)
    elif found["ok"]:
        print(report(found))
    else:
        say(f"merveil check: {found['problem']}")
        for fault in found.get("faults", [])[1:SHOWN]:
            say(f"  also {fault}")
        say(f"expected: {found['expected']}")
    return OK if found["ok"] else USAGE


def _archive(path: Path, args: argparse.Namespace) -> dict[str, Any]:
    from merveil.mer.data.check import check_archive

    if args.layout is not None:
        raise InputError(f"--layout {args.layout} is for folders; {path} is not one")
    if given := annotated(args):
        raise InputError(f"--{next(iter(given))} is for folders of annotated sets; {path} is not one")
    return check_archive(path)


def _folder(path: Path, args: argparse.Namespace) -> dict[str, Any]:
    from merveil.mer.data.check import check_folder, layouts

    if args.layout is None:
        raise InputError(f"{path} is a folder: say its --layout, one of {', '.join(layouts())}")
    return check_folder(path, args.layout, **annotated(args))
