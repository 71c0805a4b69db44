"""The clip-level budget of every client, in a file that outlives its runs.

Guarantee: steps of DP-SGD are on disk before a client takes them, and are never given back; a client's
epsilon counts its own steps over all runs of the federation, and no step that would exceed it is taken.
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from merveil.fl.dp_ledger import BudgetSpent, Ledger
from merveil.fl.privacy_sgd import Cost, epsilon

CLIP_RELATION = "one clip is added to or removed from one client; who the clients are is public"


class ClipBudget(Ledger):
    """Steps charged to each client. accountant: `prv` or `rdp` (fl.privacy_sgd)."""

    unit, relation = "clip", CLIP_RELATION

    def __init__(
        self, path: Path | None, federation: str, target: float, delta: float, accountant: str
    ) -> None:
        self.accountant = accountant
        self._steps: dict[Cost, dict[str, int]] = {}
        super().__init__(path, federation, target, delta)

    @property
    def clients(self) -> tuple[str, ...]:
        return tuple(sorted({name for steps in self._steps.values() for name in steps}))

    def spent(self, client: str) -> tuple[tuple[Cost, int], ...]:
        """One client's charges."""
        return tuple((cost, steps[client]) for cost, steps in self._steps.items() if client in steps)

    def steps(self, client: str) -> int:
        return sum(count for _, count in self.spent(client))

    def worst(self) -> tuple[tuple[Cost, int], ...]:
        """The charges of the client that has spent most."""
        found = {self.spent(client) for client in self.clients}
        return max(found, key=lambda spent: epsilon(spent, self.delta, self.accountant), default=())

    def epsilon(self, client: str | None = None) -> float:
        """What a client has spent at delta; of the one that spent most where none is named."""
        spent = self.worst() if client is None else self.spent(client)
        return epsilon(spent, self.delta, self.accountant)

    def charge(self, cost: Cost, clients: Sequence[str], steps: int) -> None:
        """Pay for `steps` steps of each of these clients. BudgetSpent names one that they would take over."""
        after = {key: dict(value) for key, value in self._steps.items()}
        row = after.setdefault(cost, {})
        for client in clients:
            row[client] = row.get(client, 0) + steps
        seen: dict[tuple[tuple[Cost, int], ...], str] = {}
        for client in clients:
            seen.setdefault(tuple((key, row[client]) for key, row in after.items() if client in row), client)
        for spent, client in seen.items():
            reached = epsilon(spent, self.delta, self.accountant)
            if reached > self.target:
                raise BudgetSpent(
                    f"{steps} more steps would bring client {client} to epsilon {reached:.4g}, over the "
                    f"budget of {self.target:g} at delta {self.delta:g}; {self.steps(client)} steps were "
                    "charged before"
                )
        self._write([_row(key, value) for key, value in after.items()])
        self._steps = after

    def _take(self, rows: list[Any]) -> None:
        for row in rows:
            cost = (float(row["multiplier"]), float(row["rate"]), Fraction(row["omega"]))
            steps = {str(name): int(count) for name, count in row["steps"].items()}
            if cost in self._steps or min(steps.values(), default=1) < 1 or min(cost) < 0:
                raise ValueError("a charge occurs twice, or is not positive")
            self._steps[cost] = steps


def _row(cost: Cost, steps: dict[str, int]) -> dict[str, Any]:
    multiplier, rate, omega = cost
    return {"multiplier": multiplier, "rate": rate, "omega": str(omega), "steps": steps}
