"""`merveil prepare`: videos, frame folders, feature pictures or the synthetic source to one archive."""

import argparse
import sys
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merveil.cli import OK, print_json, say
from merveil.cli.check import add_annotated, annotated
from merveil.mer.cores import cores
from merveil.mer.errors import InputError

if TYPE_CHECKING:
    from merveil.mer.data.archive import Archive
    from merveil.mer.features.extract import Settings
    from merveil.mer.prepare import Report

HELP = "features from videos or a dataset's folders"
OPTIONS = (
    ("flow", "optical flow: tvl1 (default), tvl1-quick (3 times faster) or dis (60 times faster)"),
    ("light", "flat (default) takes slow lighting out before the flow; or none"),
    ("normalise", "percent (default, keeps magnitude) or ststnet-compat (min-max bytes)"),
    ("rigid", "head motion taken out by: nose (default), median, similarity, none"),
    ("face", "detect (default) or full, for frames that are face crops already"),
    ("align", "a turned face is levelled by its eyes (default), by a mesh of 468 points, or none"),
    ("unit", "what percent refers to: face width (face, default) or eye distance (eyes)"),
    ("apex", "auto (default: annotated, else spotted), annotated, middle or spotted"),
)
FINISHED = {"flow-folder": "a flow-folder holds", "archives": "archives hold"}
SIDES = (
    ("crop", "px a side of the face in which flow is computed"),
    ("size", "px a side of a feature image"),
    ("apex_jitter", "features of so many frames either side of the apex as well, for training (default 0)"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        nargs="+",
        help="a folder, or synthetic[:subjects=24,clips=8,seed=0]; for --layout archives two files or more",
    )
    parser.add_argument(
        "--layout",
        required=True,
        help="synthetic, flow-folder, video-folder, archives, casme2, smic, samm, casme3, mmew, 4dme, dfme",
    )
    add_annotated(parser)
    parser.add_argument("--out", required=True, metavar="F.npz", help="the archive to write")
    parser.add_argument("--force", action="store_true", help="replace an existing --out")
    parser.add_argument("--preview", metavar="DIR", help="write one picture a clip there")
    for name, text in OPTIONS:
        parser.add_argument(f"--{name}", help=text)
    for name, text in SIDES:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, metavar="N", help=text)
    parser.add_argument(
        "--magnify", type=float, metavar="A", help="magnify movement 2 to 20 times (default 1)"
    )
    parser.add_argument("--order", help="flow-folder: channels as OpenCV reads them (default strain,v,u)")
    parser.add_argument("--jobs", "--workers", type=int, metavar="N", help="processes (default: one a core)")
    parser.add_argument("--cache", metavar="DIR", help="keep finished clips there (default: beside --out)")
    parser.add_argument("--skip-bad", action="store_true", help="leave faulty clips out, and list them")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Write the archive whole or not at all; an interrupted run goes on when the same command is repeated."""
    from merveil.mer.data.archive import save_archive
    from merveil.mer.jobs import check_layout

    started = time.monotonic()
    check_layout(args.layout)
    if len(args.source) > 1 and args.layout != "archives":
        raise InputError(
            f"one source is prepared at a time, not {len(args.source)}: only archives are pooled"
        )
    settings = _settings(args)
    out = _target(args)
    archive, report = _made(args, settings, out)
    names = ("x", "y", "dataset", "subject", "clip", "site", "person", "near", "meta")
    save_archive(out, **{name: getattr(archive, name) for name in names})
    if args.layout not in FINISHED and args.cache is None:
        _remove_parts(_parts(out))
    found = _summary(args, archive, report, settings, time.monotonic() - started)
    for note in report.notes:
        say(f"note: {note}")
    for name, why in report.skipped.items():
        say(f"left out {name}: {why}")
    if args.json:
        print_json(found)
    else:
        aligned = report.aligned.get("upright", 0)
        if aligned:
            say(f"note: in {aligned} clips no eyes were found, so the face is cropped but not turned")
        say(f"{archive.n} clips of {found['persons']} persons in {out} ({found['seconds']:.1f} s)")
    return OK


def _settings(args: argparse.Namespace) -> "Settings":
    from merveil.mer.features.extract import Settings

    known = {f.name for f in fields(Settings)}
    given = {k: v for k, v in vars(args).items() if k in known and v is not None}
    if args.order is not None and args.layout != "flow-folder":
        raise InputError("--order is for --layout flow-folder; features made here are always strain,v,u")
    if args.layout in FINISHED:
        given |= annotated(args)
        given |= {k: v for k in ("preview", "cache", "jobs") if (v := getattr(args, k)) is not None}
        if given:
            words = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(given))
            raise InputError(
                f"{words}: {FINISHED[args.layout]} finished features, so there is nothing to set"
            )
        return Settings()
    settings = Settings(**given)
    settings.check()
    return settings


def _made(args: argparse.Namespace, settings: "Settings", out: Path) -> "tuple[Archive, Report]":
    from merveil.mer.prepare import Report

    if args.layout == "archives":
        from merveil.mer.data.pool import pool

        return pool(args.source), Report()
    return _flow_folder(args) if args.layout == "flow-folder" else _clips(args, settings, out)


def _target(args: argparse.Namespace) -> Path:
    out = Path(args.out)
    if out.suffix != ".npz":
        raise InputError(f"--out {out} must end in .npz")
    if out.is_dir():
        raise InputError(f"--out {out} is a folder; name a file in it")
    if out.exists() and not args.force:
        raise InputError(f"--out {out} exists: name another file, or pass --force to replace it")
    out.parent.mkdir(parents=True, exist_ok=True)
    return out


def _parts(out: Path) -> Path:
    return out.with_name(f"{out.name}.parts")


def _clips(args: argparse.Namespace, settings: "Settings", out: Path) -> "tuple[Archive, Report]":
    from merveil.mer.prepare import prepare_archive

    progress = Progress()
    try:
        return prepare_archive(
            args.source[0],
            args.layout,
            settings=settings,
            workers=_workers(args),
            cache=args.cache or _parts(out),
            preview=args.preview,
            skip_bad=args.skip_bad,
            progress=progress,
            **annotated(args),
        )
    except KeyboardInterrupt:
        say(f"\n{progress.done} clips are kept: repeat the same command to go on")
        raise
    finally:
        progress.close()
        if args.cache is None:
            _remove_if_empty(_parts(out))


def _flow_folder(args: argparse.Namespace) -> "tuple[Archive, Report]":
    from merveil.mer.data.folders import read_flow_folder
    from merveil.mer.prepare import Report

    return read_flow_folder(args.source[0], args.order or "strain,v,u"), Report()


def _workers(args: argparse.Namespace) -> int:
    return cores() if args.jobs is None else int(args.jobs)


def _remove_parts(folder: Path) -> None:
    """Take the finished clips away once the archive holds them; nothing but our own files is touched."""
    for entry in folder.glob("*.npz"):
        if len(entry.stem) == 64:
            entry.unlink()
    _remove_if_empty(folder)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


class Progress:
    """A counter on stderr: rewritten in place on a terminal, every ten seconds elsewhere."""

    def __init__(self) -> None:
        self.done = 0
        self.started = time.monotonic()
        self.live = sys.stderr.isatty()
        self.next = time.monotonic() + (0 if self.live else 10)

    def __call__(self, done: int, total: int) -> None:
        self.done = done
        if time.monotonic() < self.next and done < total:
            return
        now = time.monotonic()
        self.next = now + (0.2 if self.live else 10)
        left = (now - self.started) / done * (total - done)
        print(
            f"{done}/{total} clips, {left:.0f} s left  ",
            file=sys.stderr,
            end="\r" if self.live else "\n",
            flush=True,
        )

    def close(self) -> None:
        if self.live and self.done:
            print(file=sys.stderr)


def _summary(
    args: argparse.Namespace, archive: "Archive", report: "Report", settings: "Settings", seconds: float
) -> dict[str, Any]:
    import hashlib

    made = args.layout not in FINISHED
    return {
        "out": str(args.out),
        "source": ", ".join(args.source),
        "layout": args.layout,
        "clips": archive.n,
        "persons": len(archive.persons()),
        "classes": {name: int((archive.y == i).sum()) for i, name in enumerate(archive.classes)},
        "shape": list(archive.x.shape[1:]),
        "dtype": str(archive.x.dtype),
        "near_apex": 0 if archive.near is None else archive.near.shape[1],
        "flow": archive.meta.flow,
        "normalisation": archive.meta.normalisation,
        "apex": report.apex,
        "aligned": report.aligned,
        "notes": report.notes,
        "settings": asdict(settings) if made else None,
        "cached": report.cached,
        "skipped": report.skipped,
        "preview": args.preview,
        "seconds": round(seconds, 3),
        "data_sha256": hashlib.sha256(Path(args.out).read_bytes()).hexdigest(),
    }
