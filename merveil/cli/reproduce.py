"""`merveil reproduce RUN`: repeat a run from its manifest and compare the model's bytes."""

import argparse
from pathlib import Path
from typing import Any

from merveil.cli import FAILED, OK, print_json, say
from merveil.cli.data import open_data
from merveil.fl.options import resolve
from merveil.mer.errors import InputError

HELP = "repeat a run from its manifest and compare"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run folder; it is only read")
    parser.add_argument("--data", metavar="F.npz", help="where the data are now, if they have moved")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.add_argument("-q", "--quiet", action="store_true", help="say the outcome only")


def run(args: argparse.Namespace) -> int:
    from merveil.fl.runs import RunLog, read_manifest, versions
    from merveil.fl.train import FINISHED, retrained_sha256, stored_options

    manifest = read_manifest(args.run)
    if manifest["status"] != FINISHED:
        raise InputError(f"{args.run} is not finished; go on with: merveil train --resume --out {args.run}")
    source, values = stored_options(args.run)
    options = resolve(values)
    if options.sha256 != manifest["config_sha256"]:
        raise InputError(f"{args.run}/config.toml was changed after the run: its hash is not the manifest's")
    archive = open_data(args.data or source)
    if archive.sha256 != manifest["data"]["sha256"]:
        raise InputError(f"{args.data or source} is not what {args.run} was trained on: its SHA-256 differs")
    found = retrained_sha256(archive, options, RunLog(verbosity=0 if args.quiet else 1))
    result = _compare(args.run, manifest, found, versions())
    if args.json:
        print_json(result)
    else:
        say(_summary(result))
    return OK if result["identical"] else FAILED


def _compare(path: Path, manifest: dict[str, Any], found: str, now: dict[str, str]) -> dict[str, Any]:
    then = manifest["versions"]
    return {
        "run": str(path),
        "identical": found == manifest["model_sha256"],
        "model_sha256": manifest["model_sha256"],
        "reproduced_sha256": found,
        "versions_changed": sorted(
            name for name in then.keys() | now.keys() if then.get(name) != now.get(name)
        ),
    }


def _summary(result: dict[str, Any]) -> str:
    if result["identical"]:
        return f"{result['run']}: reproduced, model {result['model_sha256'][:12]} byte for byte"
    changed = ", ".join(result["versions_changed"]) or "no version"
    return (
        f"{result['run']}: NOT reproduced: {result['reproduced_sha256'][:12]} instead of "
        f"{result['model_sha256'][:12]}; changed since then: {changed}"
    )
