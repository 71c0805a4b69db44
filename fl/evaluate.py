"""Honest federated scores: one federation a fold, without the held-out people, predicted once at the end.

Guarantee: a fold's clients hold training clips only, the number of rounds is fixed before the first one, and
no prediction is made before the last round of all folds: nothing is chosen by what is held out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from merveil.fl.clients import parse_clients, partition
from merveil.fl.options import TrainOptions, resolve
from merveil.mer.data.splits import check_disjoint
from merveil.mer.errors import InputError
from merveil.mer.models.registry import get

if TYPE_CHECKING:
    from merveil.fl.driver import Federation, Report, State
    from merveil.mer.data.archive import Archive
    from merveil.mer.data.splits import Fold
    from merveil.mer.models.stacked import StackedNet

Progress = Callable[[int, int], None]  # (rounds done, rounds in all)


@dataclass(frozen=True, eq=False)
class FederatedRun:
    """probabilities: float64 [n, K], row i by a model that never saw the person of clip i. info: figures.

    models: the network and its parameters [folds, size], where they were asked for.
    """

    probabilities: NDArray[np.float64]
    info: dict[str, Any]
    models: "tuple[StackedNet, NDArray[np.float32]] | None" = None


def federated_predictions(
    archive: "Archive",
    folds: Sequence["Fold"],
    *,
    model: str = "ststnet",
    scheme: str = "plain",
    clients: str = "subject",
    rounds: int | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    keep_models: bool = False,
) -> FederatedRun:
    """Train one federation a fold through `scheme` and predict every held-out clip once.

    rounds: None takes the frozen number of model and strategy. options: further fields of TrainOptions.
    keep_models: keep a network's models of all folds. Rows of clips that no fold holds out are NaN.
    InputError: options, too few clients for the scheme, a person on both sides of a fold. Aborted: a round
    gave no sum.
    """
    from merveil.fl.driver import Federation, Run

    if model == "ensemble":
        shared = {"scheme": scheme, "clients": clients, "seed": seed, "progress": progress}
        return _ensemble(archive, folds, rounds, options or {}, shared)
    own: dict[str, Any] = {"model": model, "scheme": scheme, "clients": clients, "seed": seed}
    chosen = resolve(options or {}, own, {} if rounds is None else {"rounds": rounds})
    if chosen.coverage:
        raise InputError("coverage sets a finished model's rule; a score has its curve over coverage anyway")
    rule = parse_clients(chosen.clients)
    for fold in folds:
        check_disjoint(archive, fold)
    if get(chosen.model).kind == "exact":
        from merveil.fl.exact import exact_predictions

        return FederatedRun(*exact_predictions(archive, folds, chosen, progress))
    runs = [Run(fold.name, partition(archive, rule, fold.train)) for fold in folds]
    federation = Federation(archive, runs, chosen)
    state, reports = federation.start(), list[list["Report"]]()
    for done in range(1, chosen.rounds + 1):
        state, report = federation.advance(state)
        reports.append(report)
        if progress is not None:
            progress(done, chosen.rounds)
    info = _info(chosen, federation, reports, len(partition(archive, rule)))
    models = (federation.net, federation.final(state)) if keep_models else None
    return FederatedRun(_predict(archive, folds, federation, state), info, models)


def _ensemble(
    archive: "Archive",
    folds: Sequence["Fold"],
    rounds: int | None,
    options: Mapping[str, Any],
    shared: Mapping[str, Any],
) -> FederatedRun:
    """Both parts by federations of their own over the same clients."""
    from merveil.mer.ensemble import PARTS, mixed

    if options or rounds is not None:
        raise InputError("ensemble takes no rounds or options; its parts are trained as they are alone")
    runs = [federated_predictions(archive, folds, model=part, **shared) for part in PARTS]
    first, last = runs[0].info, runs[-1].info
    info = {
        **{
            name: last[name]
            for name in ("clients", "client_rule", "clients_in_a_fold", "guarantee", "privacy")
        },
        "rounds": sum(run.info["rounds"] for run in runs),
        "strategy": "ensemble",
        "parameters": sum(run.info["parameters"] for run in runs),
        "uplink_bytes_per_client": None,
        "drop_rate": last["drop_rate"],
        "parts": [first, last],
        "options_sha256": [run.info["options_sha256"] for run in runs],
    }
    return FederatedRun(mixed([run.probabilities for run in runs]), info)


def _predict(
    archive: "Archive", folds: Sequence["Fold"], federation: "Federation", state: "State"
) -> NDArray[np.float64]:
    from merveil.mer.train import predict_stack

    found = np.full((archive.n, len(archive.classes)), np.nan)
    params = federation.final(state)
    for k, fold in enumerate(folds):
        held_out = federation.prepared[fold.test]
        found[fold.test] = predict_stack(federation.net, params[k : k + 1], held_out)[0]
    return found


def _info(
    options: TrainOptions, federation: "Federation", reports: Sequence[Sequence["Report"]], clients: int
) -> dict[str, Any]:
    """What a result file says about its training. Bytes are of one client in one round, over all folds."""
    from merveil.fl.driver import guarantee

    flat = [report for round_ in reports for report in round_]
    present = [len(run.clients) for run in federation.runs]
    return {
        "clients": clients,
        "client_rule": options.clients,
        "clients_in_a_fold": [min(present), max(present)],
        "rounds": options.rounds,
        "strategy": options.strategy,
        "parameters": federation.layout.size,
        "uplink_bytes_per_client": round(sum(r.uplink_bytes for r in flat) / sum(r.survivors for r in flat)),
        "update_clip": options.update_clip,
        "cut": float(np.mean([report.cut for report in flat])),
        "drop_rate": options.drop_rate,
        "guarantee": _guarantee(options, federation, guarantee(options.scheme, min(present))),
        "privacy": _privacy(options, federation),
        "options": options.as_dict(),
        "options_sha256": options.sha256,
    }


def _privacy(options: TrainOptions, federation: "Federation") -> dict[str, Any] | None:
    """The guarantee of each fold's model by itself, at the fold that spent most; None without one."""
    from merveil.fl.dp_run import SCOPE, figures

    found = figures(options, federation)
    return None if found is None else {**found, "scope": SCOPE}


def _guarantee(options: TrainOptions, federation: "Federation", sums: str) -> str:
    from merveil.fl.dp_run import sentence

    said = sentence(options, federation)
    return f"{said}, for each fold's model by itself; {sums}" if said else sums
