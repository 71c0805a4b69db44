"""`merveil demo`: synthetic faces to a report, offline, in a few minutes.

Clips of drawn faces -> face, flow and strain -> federated training under every scheme -> attacks on what the
server saw -> report. Interrupted, it goes on where it stopped.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from merveil.cli import OK, say

HELP = "synthetic faces to a report, in a few minutes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--out", type=Path, default=Path("merveil-demo"), metavar="DIR", help="default merveil-demo")
    add("--schemes", metavar="A,B,...", help="as `merveil compare` takes them (default: every scheme)")
    add("--subjects", type=int, default=24, help="synthetic people (default 24)")
    add("--clips", type=int, default=8, help="clips of each (default 8)")
    add("--rounds", type=int, default=25, help="federated rounds (default 25)")
    add("--seed", type=int, default=0, help="of faces, folds, training and attacks (default 0)")


def run(args: argparse.Namespace) -> int:
    from merveil.mer.data.synthetic import Source, check_source
    from merveil.mer.extras import need
    from merveil.report.collect import Progress, Settings, check, collect, stages
    from merveil.report.mechanism import parse_all
    from merveil.report.parts import open_out
    from merveil.report.render import write

    for module, extra in (("torch", "mer"), ("cv2", "mer"), ("scipy", "attacks"), ("jinja2", "report")):
        need(module, extra)
    started = perf_counter()
    source = Source(args.subjects, args.clips, args.seed)
    check_source(source)
    settings = Settings(str(source), parse_all(args.schemes), rounds=args.rounds, seed=args.seed)
    check(settings)
    open_out(args.out)
    progress = Progress(say, stages(settings) + 1)
    archive = progress.run(f"{args.subjects * args.clips} synthetic clips to flow and strain", _faces(args))
    result = collect(archive, settings, args.out, progress)
    page = write(result, args.out)
    say(f"done in {perf_counter() - started:.0f} s")
    say(f"the features are in {args.out / 'data' / 'clips.npz'}; `merveil compare --help` for data of yours")
    say(f"open {page.resolve()} in a browser")
    return OK


def _faces(args: argparse.Namespace) -> Callable[[], tuple[Any, bool]]:
    """The archive, made or found in the cache of an earlier run, and kept as a file to look at."""

    def make() -> tuple[Any, bool]:
        from merveil.mer.data.archive import save_archive
        from merveil.mer.data.synthetic import synthetic_archive

        folder = args.out / "data"
        folder.mkdir(parents=True, exist_ok=True)
        cache = folder / "cache"
        found = cache.exists()
        a = synthetic_archive(args.subjects, args.clips, args.seed, workers=2, cache=str(cache))
        save_archive(
            folder / "clips.npz",
            x=a.x,
            y=a.y,
            dataset=a.dataset,
            subject=a.subject,
            clip=a.clip,
            site=a.site,
            person=a.person,
            meta=a.meta,
        )
        return a, found

    return make
