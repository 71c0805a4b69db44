"""`merveil privacy`: what a setting of differential privacy costs, and how many subjects it would need."""

import argparse
from collections.abc import Mapping
from typing import Any

from merveil.cli import OK, print_json
from merveil.mer.errors import InputError

HELP = "epsilon or noise of given settings, and how many subjects a useful epsilon would need"
SUBJECTS = (40, 68, 1_000, 10_000)
_MOST = 65_535  # clients of one cohort


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--dp", choices=("distributed", "central", "sgd"), default="distributed", help="default distributed")
    add("--delta", type=float, required=True, help="of the guarantee")
    add("--epsilon", type=float, help="solve for the noise that keeps this epsilon")
    add("--noise", type=float, metavar="Z", help="or: the epsilon of this noise, in sensitivities of the sum")
    add("--rounds", type=int, default=60, help="uploads of every client (default 60)")
    add("--subjects", type=int, default=40, metavar="N", help="clients, one subject each (default 40)")
    add("--dim", type=int, default=1683, help="parameters of the model (default 1683, ststnet)")
    add(
        "--scheme",
        default="secagg",
        help="any but ckks, whose sums take no noise of clients (default secagg)",
    )
    add("--norm-clip", type=float, default=1.0, help="bound of an update's 2-norm (default 1)")
    add("--dp-noise", choices=("skellam", "gaussian"), default="skellam", help="default skellam")
    add("--bits", type=int, default=24, help="most grid bits a value (default 24)")
    add("--rate", type=float, help="sgd: Poisson sampling rate of a clip")
    add("--steps", type=int, help="sgd: steps in all")
    add("--accountant", choices=("prv", "rdp"), default="prv", help="sgd: of Opacus (default), or Renyi")
    add("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    if (args.epsilon is None) == (args.noise is None):
        raise InputError("name either --epsilon (solve for the noise) or --noise (compute epsilon)")
    for name in ("delta", "epsilon", "noise", "norm_clip", "rounds", "subjects", "dim", "rate", "steps"):
        value = getattr(args, name)
        if value is not None and not value > 0:
            raise InputError(f"--{name.replace('_', '-')} must be positive, not {value}")
    result = _sgd(args) if args.dp == "sgd" else _clients(args)
    if args.json:
        print_json(result)
    else:
        for line in _lines(result):
            print(line)
    return OK


def _sgd(args: argparse.Namespace) -> dict[str, Any]:
    from merveil.fl.dp_sgd import AGAINST, PARTICIPATION
    from merveil.fl.dp_sgd_ledger import CLIP_RELATION
    from merveil.fl.privacy_sgd import NAMES, cost, epsilon, sampled_gaussian, solve

    if args.rate is None or args.steps is None:
        raise InputError("--dp sgd needs --rate and --steps, beside --epsilon or --noise")
    if args.noise is not None:
        multiplier = args.noise
        spent = sampled_gaussian(multiplier, args.rate, args.steps, args.delta, args.accountant)
    else:
        found = solve(
            args.dim,
            args.norm_clip,
            args.rate,
            1.0,
            target=args.epsilon,
            delta=args.delta,
            steps=args.steps,
            accountant=args.accountant,
        )
        multiplier, spent = (
            found.multiplier,
            epsilon([(cost(found), args.steps)], args.delta, args.accountant),
        )
    return {
        **_head(args, "clip", CLIP_RELATION, PARTICIPATION),
        "epsilon": spent,
        "noise_multiplier": multiplier,
        "accountant": NAMES[args.accountant],
        "against": AGAINST,
    }


def _head(args: argparse.Namespace, unit: str, relation: str, participation: str) -> dict[str, Any]:
    return {
        "dp": args.dp,
        "unit": unit,
        "relation": relation,
        "participation": participation,
        "delta": args.delta,
    }


def _clients(args: argparse.Namespace) -> dict[str, Any]:
    from merveil.fl.dp import PARTICIPATION, epsilon_of_rounds
    from merveil.fl.dp_ledger import RELATION

    if args.delta * args.subjects >= 1:
        raise InputError(f"--delta {args.delta:g} is not below one over {args.subjects} subjects")
    if args.rate is not None or args.steps is not None:
        raise InputError("--rate and --steps are for --dp sgd")
    mechanism = _mechanism(args, args.subjects, args.noise)
    multiplier = mechanism.release().multiplier
    against = _against(args, mechanism.honest)
    table = [_row(args, n, multiplier) for n in sorted({*SUBJECTS, args.subjects})]
    return {
        **_head(args, "client", RELATION, PARTICIPATION),
        "epsilon": epsilon_of_rounds(mechanism, args.rounds, args.delta),
        "noise_multiplier": multiplier,
        "accountant": f"RDP of {mechanism.kind} noise at integer orders, optimal conversion, omega in delta",
        "against": against,
        "rounds": args.rounds,
        "subjects": args.subjects,
        "scheme": args.scheme,
        "dim": args.dim,
        "padded_dim": mechanism.size,
        "norm_clip": args.norm_clip,
        "noise": mechanism.kind,
        "grid_bits": mechanism.bits,
        "omega": float(mechanism.release().omega),
        "table": table,
        "subjects_needed": _needed(args, multiplier),
    }


def _against(args: argparse.Namespace, honest: int) -> str:
    if args.dp == "central":
        return "whoever sees the models; the server is trusted and adds the noise"
    if args.scheme == "plain":
        return "the server, which sees every upload: each carries the whole noise (local model)"
    return f"the server and its colluders: at least {honest} noise shares are unknown to them in every sum"


def _honest(args: argparse.Namespace, subjects: int) -> int:
    from merveil.fl.dp_options import check_scheme
    from merveil.protocols.registry import get

    check_scheme(args.dp, args.scheme)
    return 1 if args.dp == "central" else get(args.scheme).params(subjects, 1).honest


def _mechanism(args: argparse.Namespace, subjects: int, multiplier: float | None) -> Any:
    """The mechanism of so many subjects: with this multiplier, or solved for --epsilon."""
    from merveil.protocols.dp.discrete import plan, solve

    central = args.dp == "central"
    kind = "gaussian" if central else args.dp_noise
    place = (kind, args.dim, subjects, _honest(args, subjects), args.norm_clip)
    if multiplier is not None:
        return plan(*place, multiplier, bits=args.bits, central=central)
    return solve(
        *place, target=args.epsilon, delta=args.delta, rounds=args.rounds, bits=args.bits, central=central
    )


def _row(args: argparse.Namespace, subjects: int, multiplier: float) -> dict[str, Any]:
    """Noise of the mean over so many subjects at the same guarantee, all of them surviving."""
    mechanism = _mechanism(args, subjects, multiplier)
    spread = mechanism.noise_of_mean(subjects)
    return {
        "subjects": subjects,
        "honest_shares": mechanism.honest,
        "noise_per_value": spread,
        "noise_to_clip": spread * args.dim**0.5 / args.norm_clip,
        "grid_bits": mechanism.bits,
    }


def _needed(args: argparse.Namespace, multiplier: float) -> int | None:
    """Fewest subjects whose mean carries noise no longer than the longest possible mean update."""
    low, high = 5, _MOST
    if _row(args, high, multiplier)["noise_to_clip"] > 1:
        return None
    while low < high:
        middle = (low + high) // 2
        if _row(args, middle, multiplier)["noise_to_clip"] > 1:
            low = middle + 1
        else:
            high = middle
    return high


def _lines(result: Mapping[str, Any]) -> list[str]:
    from math import ceil

    shown = ceil(result["epsilon"] * 1000) / 1000
    lines = [
        f"epsilon {shown:g} at delta {result['delta']:g}, "
        f"noise of {result['noise_multiplier']:.4g} sensitivities",
        f"protects one {result['unit']}: {result['relation']}",
        f"takes part: {result['participation']}",
        f"against {result['against']}",
    ]
    if "table" not in result:
        return lines
    lines += ["", "subjects  honest shares  noise a value  noise / clip (2-norms, of the mean)"]
    lines += [
        f"{row['subjects']:8d}  {row['honest_shares']:13d}  {row['noise_per_value']:13.4g}  "
        f"{row['noise_to_clip']:.4g}"
        for row in result["table"]
    ]
    needed = result["subjects_needed"]
    found = f"{needed} subjects" if needed else f"more than {_MOST} subjects"
    return [*lines, "", f"noise as long as the longest possible mean update at {found}"]
