"""The budgets of one run, opened together, and what the run says about its guarantees."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merveil.fl import dp, dp_sgd
from merveil.fl.dp_ledger import Budget
from merveil.fl.dp_sgd_ledger import ClipBudget
from merveil.fl.options import TrainOptions
from merveil.protocols.dp.clips import ClipStep
from merveil.protocols.dp.discrete import Mechanism
from merveil.protocols.errors import LocalError

if TYPE_CHECKING:
    from merveil.fl.driver import Federation
    from merveil.mer.data.archive import Archive

SCOPE = (
    "each fold's model by itself, by a federation that begins unspent; the folds together, and the scores, "
    "have no guarantee"
)


@dataclass(frozen=True)
class Privacy:
    """What a run spends from and with: None where its mode has no such part, or it is not chosen yet."""

    sums: Budget | None = None
    clips: ClipBudget | None = None
    mechanism: Mechanism | None = None
    step: ClipStep | None = None


@contextlib.contextmanager
def opened(
    archive: "Archive",
    options: TrainOptions,
    folder: Path,
    ledger: Path | None,
    before: Mapping[str, Any] | None,
) -> Iterator[Privacy]:
    """The federation's ledgers, open and locked, and the mechanisms of a run that is resumed.

    folder: of the run; ledger: of the budget of sums, None for the place beside the folder. before: manifest
    of the run that is resumed. LocalError: its ledger is gone, in use, damaged or of other data.
    """
    name = dp.federation_id(archive.sha256, options.clients)
    place = ledger or folder.absolute().parent / f"dp-ledger-{name}.json"
    beside = place.with_name(f"{place.stem}-clips{place.suffix}")
    told = dict(before["privacy"]) if before and before.get("privacy") else {}
    with contextlib.ExitStack() as stack:
        sums = clips = mechanism = step = None
        if options.noisy_sums:
            _present(place, before)
            sums = stack.enter_context(Budget(place, name, options.epsilon, options.delta))
            mechanism = dp.from_json(told["mechanism"]) if told else None
        if options.sgd:
            _present(beside, before)
            target, delta, _ = dp_sgd.figures(options)
            clips = stack.enter_context(ClipBudget(beside, name, target, delta, options.sgd_accountant))
            step = dp_sgd.from_json((told.get("clips") or told)["step"]) if told else None
        yield Privacy(sums, clips, mechanism, step)


def _present(path: Path, before: Mapping[str, Any] | None) -> None:
    if before is not None and not path.exists():
        raise LocalError(
            f"the privacy ledger {path} of this run is gone: what was spent is not known any more"
        )


def remarks(options: TrainOptions, federation: "Federation") -> list[str]:
    """What a new run is to say of its noise on sums and of a budget that was used before."""
    if not options.noisy_sums:
        return []
    own = federation.private[0]
    return dp.remarks(options, own.mechanism, own.budget)


def figures(options: TrainOptions, federation: "Federation") -> dict[str, Any] | None:
    """The guarantees of a run as JSON, at the federated run that spent most; None without any.

    With noise on sums and DP-SGD, the former's fields, and the latter's under `clips`.
    """
    sums, clips = None, None
    if federation.private:
        worst = max(federation.private, key=lambda private: private.budget.epsilon())
        sums = {**dp.report(options, worst.mechanism, worst.budget), **_place(worst.budget)}
        sums["mechanism"] = dp.to_json(worst.mechanism)
    if federation.clip_budgets and federation.step is not None:
        budget = max(federation.clip_budgets, key=lambda found: found.epsilon())
        clips = {**dp_sgd.report(options, federation.step, budget), **_place(budget)}
    if sums is None:
        return clips
    return sums if clips is None else {**sums, "clips": clips}


def _place(budget: Budget | ClipBudget) -> dict[str, Any]:
    return {"ledger": None if budget.path is None else str(budget.path)}


def sentence(options: TrainOptions, federation: "Federation", *, planned: bool = False) -> str:
    """The guarantees in words, at what is spent so far, or at the targets; empty without any."""
    said = []
    if federation.private:
        worst = max(federation.private, key=lambda private: private.budget.epsilon())
        spent = options.epsilon if planned else worst.budget.epsilon()
        said.append(dp.sentence(options, worst.mechanism, spent))
    if federation.clip_budgets:
        most = max(budget.epsilon() for budget in federation.clip_budgets)
        said.append(dp_sgd.sentence(options, dp_sgd.figures(options)[0] if planned else most))
    return "; ".join(said)
