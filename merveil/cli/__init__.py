"""The `merveil` command: a thin shell, one verb a file, each imported only when it is called.

A verb module has `HELP` (one line), `add_arguments(parser)` and `run(args) -> int`.
Exit codes: 0 ok, 1 run failed, 2 usage or bad input, 3 protocol abort, 4 audit lost,
130 interrupted (resumable).
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

OK, FAILED, USAGE, ABORTED, AUDIT_LOST, INTERRUPTED = 0, 1, 2, 3, 4, 130

_ABOUT = (
    "Train, evaluate and attack micro-expression recognition across sites that share no clips. "
    "`merveil VERB --help` has the options of a verb."
)

# verb -> (module under merveil.cli, help line); the module is imported when the verb is called.
VERBS: dict[str, tuple[str, str]] = {
    "check": ("check", "what is in an archive or a dataset's folder, and its first fault"),
    "prepare": ("prepare", "features from videos or folders of a dataset, as one archive"),
    "predict": ("predict", "label of one video by a trained run, with probabilities and a picture"),
    "evaluate": ("evaluate", "honest scores: held-out people, pooled counts, intervals, baselines"),
    "compare-runs": ("compare_runs", "paired interval between two prediction files"),
    "train": ("train", "one federated training into a run folder, checkpointed and resumable"),
    "models": ("models", "the recognisers: parameters, cost, honest scores"),
    "export": ("export", "a trained model as ONNX or safetensors, checked against torch"),
    "reproduce": ("reproduce", "repeat a run from its manifest and compare"),
    "attack": ("attack", "one attack and its control against a scheme's real frames"),
    "audit": ("audit", "run the audits: every claim of SECURITY.md, tried"),
    "compare": ("compare", "schemes side by side: recognition, leakage, cost, guarantee, as one report"),
    "federation": ("federation", "identities and the signed roster of a federation"),
    "server": ("server", "a federated training over sites that dial in, from a federation.toml"),
    "site": ("site", "one member's part in a federation: dial the server, train here, send frames"),
    "privacy": ("privacy", "epsilon or noise of given settings, and the subjects they need"),
    "bench": ("bench", "time and bytes of one round of a scheme"),
    "demo": ("demo", "synthetic faces to a report, in a few minutes"),
}


def print_json(value: Mapping[str, Any]) -> None:
    """Print the one JSON object of a `--json` run on stdout; NaN is refused, since JSON has none."""
    json.dump(value, sys.stdout, allow_nan=False)
    sys.stdout.write("\n")


def say(text: str) -> None:
    """Progress and remarks go to stderr, so that stdout stays machine-readable."""
    print(text, file=sys.stderr, flush=True)


def build_parser(verb: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="merveil", description=_ABOUT)
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    sub = parser.add_subparsers(dest="verb", metavar="VERB")
    for name, (module, line) in VERBS.items():
        child = sub.add_parser(name, help=line, description=line)
        if name == verb:  # the others' options are not needed, so their modules stay unloaded
            import_module(f"merveil.cli.{module}").add_arguments(child)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; every foreseen error becomes one line on stderr and an exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    verb = next((w for w in words if not w.startswith("-")), None)
    args = build_parser(verb).parse_args(words)
    if args.version:
        from merveil import __version__

        print(__version__)
        return OK
    if args.verb is None:
        build_parser(None).print_help(sys.stderr)
        return USAGE
    return run_verb(args)


def run_verb(args: argparse.Namespace) -> int:
    from merveil.mer.errors import InputError
    from merveil.protocols.errors import Aborted, LocalError, MerveilError

    try:
        return int(import_module(f"merveil.cli.{VERBS[args.verb][0]}").run(args))
    except (InputError, LocalError) as error:
        say(f"merveil {args.verb}: {error}")
        return USAGE
    except Aborted as error:
        say(f"merveil {args.verb}: aborted: {error}")
        return ABORTED
    except MerveilError as error:
        say(f"merveil {args.verb}: {error}")
        return FAILED
    except OSError as error:
        say(f"merveil {args.verb}: {error.strerror or error}: {error.filename or ''}".rstrip(": "))
        return FAILED
    except ImportError as error:
        say(f"merveil {args.verb}: {error}")
        return FAILED
    except KeyboardInterrupt:
        # Where it came up inside an `exec` of a library, Python would end by the signal in spite of the code
        # returned here; running anything clears that mark.
        exec("")
        say(f"merveil {args.verb}: interrupted")
        return INTERRUPTED
