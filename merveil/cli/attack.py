"""`merveil attack`: one attack and its positive control, against one scheme's real frames."""

import argparse
from time import perf_counter
from typing import Any

from merveil.cli import AUDIT_LOST, OK, print_json, say
from merveil.mer.errors import InputError

CURVES = ("A25-sum", "A25-span", "A25-gram")
HELP = "one attack and its control against a scheme's real frames"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("id", nargs="?", metavar="ID", help="such as A24; see --list")
    add("--list", action="store_true", help="what there is, with the adversary of each")
    add("--scheme", default="plain", help="the scheme to attack (default plain)")
    add(
        "--data",
        default="synthetic",
        help="archive F.npz, or synthetic[:subjects=24,clips=8,seed=0] (default synthetic)",
    )
    add("--model", default="ststnet", help="network that the clients train (default ststnet)")
    add("--curve", action="store_true", help="an attack on the sum: also at cohorts of 2, 5, 10, 20 and 60")
    add("--seed", type=int, default=0, help="who holds which clip, and the start model (default 0)")
    add("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    if args.list:
        return listing(args.json)
    if args.id is None:
        raise InputError("name an attack, such as A24, or --list to see them")
    result = attack(args.id, args.scheme, args.data, args.model, args.seed, args.curve)
    if args.json:
        print_json(result)
    else:
        print(spoken(result))
    return AUDIT_LOST if result["lost"] else OK


def listing(as_json: bool) -> int:
    """Every attack of the catalogue that is built, and the lines that are not."""
    from merveil.attacks.record import adversary_json
    from merveil.attacks.registry import PENDING, attacks, catalogue
    from merveil.audits.claims import claims_of

    found = [
        {
            "id": a.id,
            "title": a.title,
            "adversary": adversary_json(a.adversary),
            "source": a.source,
            "claims": claims_of(a.id),
            "schemes": list(a.schemes),
        }
        for a in attacks().values()
    ]
    pending = {line: PENDING.get(line, "") for line, built in catalogue().items() if not built}
    if as_json:
        print_json({"attacks": found, "pending": pending})
        return OK
    for a in found:
        print(f"{a['id']:<15}{a['title']:<67}{a['adversary']['name']:<52}{', '.join(a['claims'])}")
    for line, title in pending.items():
        print(f"{line:<15}{title:<67}not built yet")
    return OK


def attack(name: str, scheme: str, data: str, model: str, seed: int, curve: bool = False) -> dict[str, Any]:
    """Run it; `lost` says that a scheme which claims protection against it is broken or cannot be judged."""
    from merveil.attacks.record import record
    from merveil.attacks.registry import get
    from merveil.attacks.runner import cohort_curve, try_attack
    from merveil.attacks.scenario import Task
    from merveil.audits.claims import claimed
    from merveil.audits.controls import control_of
    from merveil.cli.data import open_data
    from merveil.mer.models.registry import get as get_model
    from merveil.protocols.registry import names

    started, chosen = perf_counter(), get(name)
    if scheme not in names():
        raise InputError(f"there is no scheme {scheme!r}; there are: {', '.join(names())}")
    if chosen.schemes and scheme not in chosen.schemes:
        raise InputError(f"{chosen.id} is about {', '.join(chosen.schemes)}; {scheme} has no such part")
    if curve and chosen.id not in CURVES:
        raise InputError(f"--curve is for the attacks on a sum's members: {', '.join(CURVES)}")
    get_model(model)
    archive = open_data(data) if chosen.setting != "protocol" else None
    task: Any = Task(archive, model=model) if archive is not None else None
    say(f"{chosen.id} {chosen.title}: positive control")
    control = control_of(chosen, task, seed + 1)
    say(f"{chosen.id} {chosen.title}: {scheme}")
    found = record(try_attack(chosen, task, scheme, seed), control)
    claim = claimed(chosen.id, scheme)
    points = {}
    if curve:
        say(f"{chosen.id} {chosen.title}: by cohort")
        points = cohort_curve(chosen, task, scheme, seed)
    return {
        **found,
        "claim": claim,
        "lost": claim is not None and found["verdict"] != "protected",
        "model": model,
        "data": data,
        "data_sha256": archive.sha256 if archive is not None else None,
        "seed": seed,
        "curve": [{"cohort": n, **finding.to_json()} for n, finding in points.items()],
        "seconds": round(perf_counter() - started, 3),
    }


def spoken(result: dict[str, Any]) -> str:
    """Four lines for people, and one a cohort of a curve."""
    low, high = result["ci95"]
    control = result["control"]
    claim = f"claim {result['claim']}" if result["claim"] else "no claim of protection"
    points = [
        f"  {p['cohort']} clients: {p['score']:.3f} [{p['ci95'][0]:.3f}, {p['ci95'][1]:.3f}]"
        for p in result["curve"]
    ]
    return "\n".join(
        [
            f"{result['id']} {result['title']}, scheme {result['scheme']} ({claim}): {result['verdict']}",
            f"  {result['statistic']}: {result['score']:.3f} [{low:.3f}, {high:.3f}], chance "
            f"{result['chance']:.3f}, n = {result['n']} {result['unit']}",
            f"  control ({control['scheme']}): {control['score']:.3f}",
            f"  from {result['mde']:.3f} on, a success would have been seen; {result['seconds']} s",
            *points,
        ]
    )
