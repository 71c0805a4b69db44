"""Cells of `ensemble` from its parts' cells: the mean of their probabilities, scored as `evaluate` does.

The parts of an ensemble are trained as they are alone, with its seed, so its run repeats theirs. A mixture is
taken for a run only where a whole run of the same line gives the same labels, and probabilities to TOLERANCE
(a written cell is scaled to sum to 1, which costs a last bit).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from results_page import in_order  # beside this file

from merveil.mer.atomic import write_text
from merveil.mer.data.archive import Archive, load_archive
from merveil.mer.data.splits import loso
from merveil.mer.ensemble import PARTS, mixed
from merveil.mer.evaluation import score
from merveil.mer.models.registry import get
from merveil.mer.predictions import write_predictions

TOLERANCE = 1e-7


@dataclass(frozen=True, eq=False)
class Mixture:
    """probabilities float64 [n, K] in the archive's order; cells: the parts' names; seconds: of both."""

    archive: Archive
    probabilities: NDArray[np.float64]
    cells: tuple[str, ...]
    seconds: float
    seed: int

    def save(self, folder: Path, vouched: int) -> None:
        """Write the cell: what the page reads, and where it is from."""
        folds = loso(self.archive)
        found = score(self.archive, folds, self.probabilities, seed=self.seed)
        about = {"model": "ensemble", "seed": self.seed, "data_sha256": self.archive.sha256, "rounds": None}
        origin = {"mixed_from": list(self.cells), "vouched_by_seed": vouched, "seconds": self.seconds}
        folder.mkdir(parents=True, exist_ok=True)  # a save that was interrupted is made again
        write_predictions(folder / "predictions.csv", self.archive, folds, self.probabilities)
        text = json.dumps({**found, **about, **origin}, indent=2)
        write_text(folder / "result.json", text + "\n")  # last: it makes the cell


def mixture(data: str, cache: Path, row: Any, seed: int) -> Mixture | None:
    """The mixture of one seed, or None where a part's cell is missing. SystemExit: cells of other data."""
    archive = load_archive(data)
    cells = [_part(row, name, seed) for name in PARTS]
    if not all((cache / cell / "result.json").is_file() for cell in cells):
        return None
    results = [json.loads((cache / cell / "result.json").read_text()) for cell in cells]
    for cell, result in zip(cells, results):
        if result["data_sha256"] != archive.sha256:
            raise SystemExit(f"{cell} was scored on other data")
    found = mixed([in_order(archive, cache / cell)[1] for cell in cells])
    return Mixture(archive, found, tuple(cells), sum(r["seconds"] for r in results), seed)


def vouched(data: str, cache: Path, row: Any) -> int:
    """The seed of a whole run of this line that agrees with its mixture. SystemExit: none, or one differs."""
    agreed = []
    for seed in row.seeds:
        path = cache / row.folder(seed) / "result.json"
        if not path.is_file() or "mixed_from" in json.loads(path.read_text()):
            continue
        found = mixture(data, cache, row, seed)
        if found is None:
            continue
        labels, whole = in_order(found.archive, cache / row.folder(seed))
        off = float(np.abs(whole - found.probabilities).max())
        if off > TOLERANCE or (labels != found.probabilities.argmax(1)).any():
            raise SystemExit(f"{row.folder(seed)} differs from the mixture of its parts by {off:.1e}")
        agreed.append(seed)
    if not agreed:
        raise SystemExit(f"{row.form}, {row.way}: no whole run to vouch for mixtures: run one seed first")
    return int(agreed[0])


def _part(row: Any, name: str, seed: int) -> str:
    """The cell of one part; what has no seed has only seed 0."""
    part: Callable[[int], str] = replace(row, model=name, options=(), recipe="default").folder
    return part(0 if get(name).kind == "exact" else seed)
