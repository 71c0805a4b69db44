"""The privacy budget of one federation, in a file that outlives its runs.

Guarantee: a charge is on disk before the upload it pays for leaves, and is never given back: an aborted
round, a killed run and a run started over have all been paid. A charge that would exceed the budget is
refused. One process at a time holds the file. Restoring an older copy of it voids the guarantee.
"""

import json
from abc import ABC, abstractmethod
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from merveil.fl.ledger import FileStore
from merveil.protocols.dp.accountant import Release, epsilon
from merveil.protocols.errors import LocalError

FORMAT = 1
UNIT = "client"
RELATION = "one client's vector is replaced by zero; the survivor set is public"


class BudgetSpent(LocalError):
    """The next upload would exceed epsilon; nothing has been sent."""


class Ledger(ABC):
    """Charges of one federation: the file, its lock and its checks; subclasses say what a charge is.

    path None keeps it in memory: for a measurement that starts from nothing. target, delta: of the run that
    spends now. LocalError: a damaged file, or one of another federation or unit.
    """

    unit: str
    relation: str

    def __init__(self, path: Path | None, federation: str, target: float, delta: float) -> None:
        self.path, self.federation, self.target, self.delta = path, federation, target, delta
        self._store = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._store = FileStore(path, create=not path.exists())
            try:
                self._load(self._store.load())
            except BaseException:
                self.close()
                raise

    @abstractmethod
    def _take(self, rows: list[Any]) -> None:
        """Take the charges of a file. ValueError, KeyError or TypeError where they are damaged."""

    def _more(self) -> dict[str, Any]:
        """What a file holds beside its charges."""
        return {}

    def _take_more(self, value: dict[str, Any]) -> None:
        """Take what `_more` gave, of a file whose charges are whole; errors as of `_take`."""
        return

    def _write(self, rows: list[dict[str, Any]]) -> None:
        """Put charges on disk, before anybody relies on them."""
        if self._store is not None:
            head = {
                "format": FORMAT,
                "federation": self.federation,
                "unit": self.unit,
                "relation": self.relation,
            }
            whole = {**head, **self._more(), "charges": rows}
            self._store.save((json.dumps(whole, indent=1) + "\n").encode())

    def _load(self, data: bytes | None) -> None:
        if data is None:
            return
        try:
            value = json.loads(data)
            named, whole = str(value["federation"]), value["format"] == FORMAT
            whole = whole and value["unit"] == self.unit
            self._take(value["charges"])
            self._take_more(value)
        except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
            raise LocalError(f"the privacy ledger {self.path} is damaged: {error}") from error
        if not whole:
            raise LocalError(f"the privacy ledger {self.path} is of another format or unit")
        if named != self.federation:
            raise LocalError(f"the privacy ledger {self.path} belongs to other data or clients than these")

    def close(self) -> None:
        if self._store is not None:
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Budget(Ledger):
    """Charged releases of one federation: noise on sums, so every client is charged alike."""

    unit, relation = UNIT, RELATION

    def __init__(self, path: Path | None, federation: str, target: float, delta: float) -> None:
        self._counts: dict[Release, int] = {}
        super().__init__(path, federation, target, delta)

    @property
    def spent(self) -> tuple[tuple[Release, int], ...]:
        return tuple(self._counts.items())

    @property
    def uploads(self) -> int:
        """Rounds charged, over all runs of the federation."""
        return sum(self._counts.values())

    def epsilon(self) -> float:
        """What has been spent, at delta."""
        return epsilon(self.spent, self.delta)

    def check(self, release: Release) -> None:
        """BudgetSpent where one more upload would exceed the target; nothing is charged."""
        self._after(release)

    def charge(self, release: Release) -> None:
        """Pay for one upload of every client. BudgetSpent where epsilon would exceed the target."""
        after = self._after(release)
        self._write([_row(release, count) for release, count in after.items()])
        self._counts = after

    def _after(self, release: Release) -> dict[Release, int]:
        """The counts with one more upload. BudgetSpent."""
        after = {**self._counts, release: self._counts.get(release, 0) + 1}
        cost = epsilon(after.items(), self.delta)
        if cost > self.target:
            raise BudgetSpent(
                f"the next round would bring epsilon to {cost:.4g}, over the budget of {self.target:g} "
                f"at delta {self.delta:g}; {self.uploads} uploads were charged before"
            )
        return after

    def _take(self, rows: list[Any]) -> None:
        self._counts = {_release(row): _count(row) for row in rows}
        if len(self._counts) != len(rows):
            raise ValueError("a charge occurs twice")


def _row(release: Release, count: int) -> dict[str, Any]:
    return {
        "kind": release.kind,
        "l2_squared": release.l2_squared,
        "dim": release.dim,
        "honest": release.honest,
        "variance": str(release.variance),
        "omega": str(release.omega),
        "count": count,
    }


def _release(row: dict[str, Any]) -> Release:
    return Release(
        str(row["kind"]),
        int(row["l2_squared"]),
        int(row["dim"]),
        int(row["honest"]),
        Fraction(row["variance"]),
        Fraction(row["omega"]),
    )


def _count(row: dict[str, Any]) -> int:
    count = int(row["count"])
    if count < 1:
        raise ValueError(f"a count of {count}")
    return count
