"""`merveil train`: one federated training into a run folder, checkpointed and resumable."""

import argparse
import signal
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from merveil.cli import OK, print_json, say
from merveil.cli.data import open_data
from merveil.fl.options import TrainOptions, read_config, resolve
from merveil.mer.errors import InputError

HELP = "one federated training into a run folder, checkpointed and resumable"

_HELP = {
    "model": "network to train (default ststnet; see `merveil models`)",
    "scheme": "how updates are summed (default plain: the server reads all)",
    "clients": "subject, site, or site:K for K groups of subjects (default subject)",
    "rounds": "federated rounds (default: frozen with model and strategy)",
    "strategy": "server rule: fedavg, fedprox, fedadam, fedadamw, scaffold (default fedadamw)",
    "local_epochs": "epochs a client trains in one round",
    "batch": "clips a local step; 0: all clips of the client; under sgd the public divisor of a step's sum",
    "optimiser": "of the clients: sgd, adam, adamw",
    "lr": "rate of the clients",
    "weight_decay": "of the clients' optimiser",
    "label_smoothing": "of the clients' loss",
    "class_weights": "weigh classes by the secure count over all clients",
    "server_lr": "rate of the server's step",
    "server_weight_decay": "of the server's step (fedadamw)",
    "server_schedule": "constant or cosine",
    "beta1": "of the server's moments",
    "beta2": "of the server's moments",
    "tau": "Adam's epsilon at the server",
    "prox_mu": "fedprox: pull of clients to the global model",
    "apex_jitter": "chance that a clip is shown by a frame near its apex (prepare --apex-jitter); 0: never",
    "server_ema": "running average of the models over rounds, which then predicts; 0: none",
    "logit_tau": "add this times log(class share) to training scores (secure count); 1: balanced softmax",
    "update_clip": "bound of every coordinate of a client's update",
    "bits": "grid bits a value, 4 to 40",
    "max_cut": "largest share of a client's coordinates that may meet the bound",
    "max_weight": "cap of the clip count a client weighs with; 0: none (a power of two above the largest)",
    "drop_rate": "simulated share of clients that fail in a round",
    "checkpoint_every": "rounds between checkpoints",
    "coverage": "share of clips the model is to answer: its threshold, by four inner trainings; 0: none",
    "dp": "differential privacy: none, distributed (clients add noise to sums), central (a trusted server "
    "does), sgd (a client's own training has it), distributed+sgd, central+sgd",
    "epsilon": "privacy budget of the federation, over all its runs",
    "delta": "of the guarantee; below one over the clients",
    "dp_unit": "what is protected: client, or person where clients are subjects; clip under sgd",
    "norm_clip": "bound of the 2-norm of a client's update (sgd: of a clip's gradient), a constant",
    "dp_noise": "skellam (default) or gaussian (discrete); central noise is always the latter",
    "sgd_rate": "chance of a clip to be in a step of DP-SGD, a public constant (default 0.5)",
    "sgd_accountant": "of DP-SGD: prv (Opacus, default) or rdp",
    "sgd_epsilon": "clip-level budget where sgd comes on top of another mode (default: as --epsilon)",
    "sgd_delta": "of that guarantee (default: as --delta)",
    "sgd_clip": "bound of the 2-norm of one clip's gradient there",
    "seed": "training seed: initialisation, order, dropout, rounding; never keys or masks",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", metavar="F.npz", help="archive, or synthetic[:subjects=24,clips=8,seed=0]")
    add("--out", type=Path, metavar="runs/NAME", help="the run folder", required=True)
    add("--config", type=Path, metavar="F.toml", help="options from a file; the command line wins")
    add("--resume", action="store_true", help="go on with the run in --out")
    add("--force", action="store_true", help="start the run in --out over")
    for entry in fields(TrainOptions):
        flag = "--" + entry.name.replace("_", "-")
        if entry.type is bool:
            add(flag, action=argparse.BooleanOptionalAction, default=None, help=_HELP[entry.name])
        elif entry.name in _HELP:
            add(flag, type=entry.type, help=_HELP[entry.name])
    add("--dp-ledger", type=Path, metavar="FILE", help="the budget's file (default: beside the run folder)")
    add("--norm", help="normalisation of the network: group (batch cannot be federated)")
    add("--tensorboard", action="store_true", help="write events to RUN/tensorboard")
    add("--json", action="store_true", help="print one JSON object on stdout")
    add("-v", "--verbose", action="store_true", help="say every round")
    add("-q", "--quiet", action="store_true", help="say warnings only")
    add(
        "--log-format", choices=("text", "json"), default="text", help="of progress, on stderr and in log.txt"
    )


def run(args: argparse.Namespace) -> int:
    source, options = _settings(args)
    from merveil.fl.runs import RunLog, check_target
    from merveil.fl.train import Target, train

    if args.dp_ledger is not None and not options.private:
        raise InputError("--dp-ledger has no effect without --dp")
    target = Target(args.out, args.resume, args.force, args.tensorboard, args.dp_ledger)
    check_target(target.path, target.resume, target.force)  # before the data are read or made
    archive = open_data(source)
    log = RunLog(verbosity=0 if args.quiet else 2 if args.verbose else 1, as_json=args.log_format == "json")
    for notice in archive.notices:
        log.warn(f"{source}: {notice}")
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill saves as Ctrl-C does
    try:
        result = train(archive, source, options, target, log)
    finally:
        signal.signal(signal.SIGTERM, before)
    if args.json:
        print_json(result)
    elif not args.quiet:
        say(_summary(result))
    return OK


def _settings(args: argparse.Namespace) -> tuple[str, TrainOptions]:
    """Data source and options: those of the run to resume, then --config, then the command line."""
    given = {entry.name: getattr(args, entry.name, None) for entry in fields(TrainOptions)}
    asked = {name: value for name, value in given.items() if value is not None}
    source, stored = "", dict[str, Any]()
    if args.resume:
        from merveil.fl.train import stored_options

        source, stored = stored_options(args.out)
    listed = read_config(args.config) if args.config else {}
    source = str(args.data or listed.pop("data", "") or source)
    listed.pop("data", None)
    if args.norm is not None:
        asked["model_options"] = {**_table(stored), **_table(listed), "norm": args.norm}
    if not source:
        raise InputError(
            "--data is missing: name an archive F.npz, or synthetic[:subjects=24,clips=8,seed=0]"
        )
    return source, resolve(stored, listed, asked)


def _table(values: Mapping[str, Any]) -> dict[str, Any]:
    found = values.get("model_options", {})
    return dict(found) if isinstance(found, Mapping) else {}


def _summary(result: Mapping[str, Any]) -> str:
    return (
        f"{result['run']}: {result['model']} after {result['rounds']} rounds over {result['clients']} "
        f"clients ({result['scheme']}), model {result['model_sha256'][:12]}, {result['seconds']:.1f} s; "
        "a model is scored by `merveil evaluate` on people it has not seen"
    )
