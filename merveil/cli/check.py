"""`merveil check`: what an archive or a dataset's folder holds, what was expected, and the first mismatch."""

import argparse
from pathlib import Path
from typing import Any

from merveil.cli import OK, USAGE, print_json, say
from merveil.mer.errors import InputError

HELP = "what is in an archive or a dataset's folder, and its first fault"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", help="an .npz archive, or the root folder of a dataset")
    parser.add_argument("--layout", help="the folder's layout: flow-folder, video-folder, ...")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Exit code 0 for valid, 2 with the fault named otherwise (with --json inside the object)."""
    from merveil.mer.data.check import report

    path = Path(args.path)
    found = _folder(path, args.layout) if path.is_dir() else _archive(path, args.layout)
    for notice in found.get("notices", []):
        say(f"note: {notice}")
    if args.json:
        print_json(found)
    elif found["ok"]:
        print(report(found))
    else:
        say(f"merveil check: {found['problem']}")
        say(f"expected: {found['expected']}")
    return OK if found["ok"] else USAGE


def _archive(path: Path, layout: str | None) -> dict[str, Any]:
    from merveil.mer.data.check import check_archive

    if layout is not None:
        raise InputError(f"--layout {layout} is for folders; {path} is not one")
    return check_archive(path)


def _folder(path: Path, layout: str | None) -> dict[str, Any]:
    from merveil.mer.data.check import check_folder
    from merveil.mer.data.folders import LAYOUTS

    if layout is None:
        raise InputError(f"{path} is a folder: say its --layout, one of {', '.join(LAYOUTS)}")
    return check_folder(path, layout)
