"""What a server knows of a private training's cost: enough to plan it and to say what it promises.

Guarantee: every upload that the server asked for is in the file before it is asked for, so its epsilon is an
upper bound of what any site paid under this server. No site relies on it: each keeps its own (`private`).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from merveil.fl import dp
from merveil.fl.deploy.private import LEDGER
from merveil.fl.dp_ledger import Budget
from merveil.fl.options import TrainOptions
from merveil.protocols.dp.discrete import Mechanism
from merveil.protocols.errors import LocalError

PROTECTS = (
    "a site's whole update, with all its clips and persons together; a person only where a site is one person"
)
PARTICIPATION = "every site in every upload that the server asked for; a site that was away paid less"


class Account:
    """mechanism: of every round of the run. budget: of the federation, as the server counts it. remarks: for
    the log, where a new run begins."""

    def __init__(
        self, options: TrainOptions, mechanism: Mechanism, budget: Budget, remarks: Sequence[str] = ()
    ) -> None:
        self.options, self.mechanism, self.budget, self.remarks = options, mechanism, budget, remarks
        self._release = mechanism.release()

    def afford(self) -> None:
        """BudgetSpent where one more upload would exceed the target; nothing is written."""
        self.budget.check(self._release)

    def charge(self) -> None:
        """Note an upload that is about to be asked for. BudgetSpent: it may not be asked for."""
        self.budget.charge(self._release)

    def report(self) -> dict[str, Any]:
        """Unit, neighbouring relation, delta, accountant, what is spent, and against whom it holds."""
        found = dp.report(self.options, self.mechanism, self.budget)
        told = {"protects": PROTECTS, "participation": PARTICIPATION}
        return {**found, **told, "mechanism": dp.to_json(self.mechanism)}

    def sentence(self) -> str:
        """The guarantee of the finished training in words, at its target."""
        said = dp.sentence(self.options, self.mechanism, self.options.epsilon)
        return f"{said.replace(dp.PARTICIPATION, PARTICIPATION)}; a client is {PROTECTS}"


@contextmanager
def account(
    options: TrainOptions,
    home: Path,
    federation: bytes,
    dim: int,
    members: int,
    before: Mapping[str, Any] | None,
) -> Iterator[Account | None]:
    """The account of a run, None where it has no noise on sums; the ledger is locked as long as it is open.

    before: manifest of the run that goes on; its mechanism is kept. InputError: delta is no smaller than one
    over the members. BudgetSpent: nothing of the budget is left for a new run, or too little (`dp.STRETCH`).
    LocalError: the ledger of a run that goes on is gone.
    """
    if not options.noisy_sums:
        yield None
        return
    path = home / LEDGER
    told = (before or {}).get("privacy")
    if told and not path.exists():
        raise LocalError(
            f"the privacy ledger {path} of this run is gone: what was spent is not known any more"
        )
    with Budget(path, federation.hex(), options.epsilon, options.delta) as budget:
        if told:
            yield Account(options, dp.from_json(told["mechanism"]), budget)
            return
        mechanism = dp.mechanism_for(options, dim, members, budget)
        yield Account(options, mechanism, budget, dp.remarks(options, mechanism, budget))
