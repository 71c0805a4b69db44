"""The privacy budget of one federation, in a file that outlives its runs.

Guarantee: a charge is on disk before the upload it pays for leaves, and is never given back: an aborted
round, a killed run and a run started over have all been paid. A charge that would exceed the budget is
refused. One process at a time holds the file. Restoring an older copy of it voids the guarantee.
"""

import json
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


class Budget:
    """Charged releases of one federation. target, delta: of the run that spends now.

    path None keeps the ledger in memory: for a measurement that starts from nothing.
    LocalError: a damaged file, or one of another federation.
    """

    def __init__(self, path: Path | None, federation: str, target: float, delta: float) -> None:
        self.path, self.federation, self.target, self.delta = path, federation, target, delta
        self._counts: dict[Release, int] = {}
        self._store = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._store = FileStore(path, create=not path.exists())
            try:
                self._load(self._store.load())
            except BaseException:
                self.close()
                raise

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

    def charge(self, release: Release) -> None:
        """Pay for one upload of every client. BudgetSpent where epsilon would exceed the target."""
        after = {**self._counts, release: self._counts.get(release, 0) + 1}
        cost = epsilon(after.items(), self.delta)
        if cost > self.target:
            raise BudgetSpent(
                f"the next round would bring epsilon to {cost:.4g}, over the budget of {self.target:g} "
                f"at delta {self.delta:g}; {self.uploads} uploads were charged before"
            )
        if self._store is not None:
            self._store.save(self._encoded(after))
        self._counts = after

    def _encoded(self, counts: dict[Release, int]) -> bytes:
        charges = [
            {
                "kind": release.kind,
                "l2_squared": release.l2_squared,
                "dim": release.dim,
                "honest": release.honest,
                "variance": str(release.variance),
                "omega": str(release.omega),
                "count": count,
            }
            for release, count in counts.items()
        ]
        head = {"format": FORMAT, "federation": self.federation, "unit": UNIT, "relation": RELATION}
        return (json.dumps({**head, "charges": charges}, indent=1) + "\n").encode()

    def _load(self, data: bytes | None) -> None:
        if data is None:
            return
        try:
            value = json.loads(data)
            found = {_release(row): _count(row) for row in value["charges"]}
            named = str(value["federation"])
            whole = value["format"] == FORMAT and len(found) == len(value["charges"])
        except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
            raise LocalError(f"the privacy ledger {self.path} is damaged: {error}") from error
        if not whole:
            raise LocalError(f"the privacy ledger {self.path} is damaged or of another format")
        if named != self.federation:
            raise LocalError(f"the privacy ledger {self.path} belongs to other data or clients than these")
        self._counts = found

    def close(self) -> None:
        if self._store is not None:
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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
