"""`merveil compare`: schemes side by side, as one self-contained report with JSON and Markdown twins."""

import argparse
import json
from pathlib import Path

from merveil.cli import OK, print_json, say
from merveil.report.mechanism import DELTA, NORM_CLIP

HELP = "schemes side by side: recognition, leakage, cost, guarantee, as one report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--data",
        required=True,
        metavar="F.npz",
        help="archive of features, or synthetic[:subjects=24,clips=8,seed=0]",
    )
    add(
        "--schemes",
        metavar="A,B,...",
        help="SCHEME, or SCHEME:distributed|central:EPSILON with differential privacy on top "
        "(default: every scheme that is built)",
    )
    add("--delta", type=float, default=DELTA, help=f"delta of private mechanisms (default {DELTA:g})")
    add(
        "--norm-clip",
        type=float,
        default=NORM_CLIP,
        help=f"bound of an update's 2-norm under them (default {NORM_CLIP:g})",
    )
    add("--out", required=True, type=Path, metavar="DIR", help="new folder, or one of an earlier comparison")
    add("--model", default="ststnet", help="network (default ststnet)")
    add("--rounds", type=int, help="federated rounds (default: frozen with the model)")
    add("--protocol", default="kfold:5", metavar="loso|kfold:K", help="how people are held out")
    add("--clients", default="subject", metavar="subject|site|site:K", help="who the clients are")
    add("--seed", type=int, default=0, help="training seed; also of folds and attacks (default 0)")
    add("--json", action="store_true", help="print the content of report.json on stdout")


def run(args: argparse.Namespace) -> int:
    from merveil.cli.data import open_data
    from merveil.mer.extras import need
    from merveil.report.collect import Progress, Settings, check, collect, stages
    from merveil.report.mechanism import parse_all
    from merveil.report.parts import open_out
    from merveil.report.render import write

    for module, extra in (("torch", "mer"), ("scipy", "attacks"), ("jinja2", "report")):
        need(module, extra)
    settings = Settings(
        source=args.data,
        mechanisms=parse_all(args.schemes),
        model=args.model,
        protocol=args.protocol,
        clients=args.clients,
        rounds=args.rounds,
        seed=args.seed,
        delta=args.delta,
        norm_clip=args.norm_clip,
    )
    check(settings)
    open_out(args.out)
    archive = open_data(args.data)
    for notice in archive.notices:
        say(f"note: {args.data}: {notice}")
    result = collect(archive, settings, args.out, Progress(say, stages(settings)))
    page = write(result, args.out)
    say(f"open {page} in a browser; the figures are in report.json and report.md beside it")
    if args.json:
        print_json(json.loads((args.out / "report.json").read_text(encoding="utf-8")))
    return OK
