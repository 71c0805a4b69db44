"""From predictions of held-out clips to the one JSON object of `merveil evaluate`.

`score` is the only place where truth meets predictions, and it is called once, after the last fold has made
its last step: no model, epoch or round is chosen by it.
"""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from merveil.mer.baselines import kernel_ridge_predictions, majority_predictions
from merveil.mer.calibration import selective
from merveil.mer.data.archive import Archive
from merveil.mer.data.splits import Fold, check_cover, missing_classes
from merveil.mer.errors import InputError
from merveil.mer.metrics import bootstrap_ci95, confusion, scores, undefined

Floats = NDArray[np.float64]
# Clips of each class (negative, positive, surprise) in the MEGC2019 composite.
MEGC2019 = {"smic": (70, 51, 43), "casme2": (88, 32, 25), "samm": (92, 26, 15)}
PACKAGES = ("merveil", "numpy", "torch", "opencv-contrib-python-headless")


def allowed(archive: Archive, folds: Sequence[Fold], probabilities: ArrayLike) -> Floats:
    """Checked probabilities float64 [n, K], with 0 for a class that the clip's training part lacks.

    A model cannot have learnt such a class, whatever its unused output says: the clip's truth counts as an
    error. Raises InputError for a wrong shape, a value outside 0..1, NaN, or a row whose sum is not 1.
    """
    p = np.array(probabilities, dtype=np.float64)
    if p.shape != (archive.n, len(archive.classes)):
        raise InputError(f"probabilities have shape {p.shape}, not {(archive.n, len(archive.classes))}")
    bad = np.flatnonzero(~((p >= 0) & (p <= 1 + 1e-6)).all(axis=1) | ~(np.abs(p.sum(axis=1) - 1) < 1e-4))
    if len(bad):
        raise InputError(
            f"clip {archive.key(bad[0])} has the probabilities {p[bad[0]].tolist()}, with sum not 1"
        )
    for fold in folds:
        missing = list(missing_classes(archive, fold))
        if missing:
            part = p[fold.test]
            part[:, missing] = 0
            present = [c for c in range(p.shape[1]) if c not in missing]
            part[part.sum(axis=1) == 0, present[0]] = 1
            p[fold.test] = part
    return np.asarray(p / p.sum(axis=1, keepdims=True))


def score(
    archive: Archive,
    folds: Sequence[Fold],
    probabilities: ArrayLike,
    *,
    seed: int = 0,
    baselines: Mapping[str, Mapping[str, float]] | None = None,
) -> dict[str, Any]:
    """Pooled scores of one run: the scoring part of the contracted JSON.

    uf1, uar, accuracy; confusion [K][K] rows truth; undefined class names; per_dataset slices of the same
    pooled run; ci95 over persons; selective, the risk over coverage; clips, subjects (persons), folds,
    classes; incomplete_folds {fold: class names its training part lacks}; notices; baselines {majority,
    kernel_ridge}, computed here unless given.
    `seed` is of the bootstrap. Raises InputError if folds overlap in persons or do not cover each clip once.
    """
    check_cover(archive, folds)
    k, names = len(archive.classes), archive.classes
    predicted = allowed(archive, folds, probabilities).argmax(axis=1)
    conf = confusion(archive.y, predicted, k)
    lacking = {fold.name: [names[c] for c in missing_classes(archive, fold)] for fold in folds}
    return {
        **scores(conf),
        "confusion": conf.tolist(),
        "undefined": [names[c] for c in undefined(conf)],
        "per_dataset": {
            str(name): _part(archive, predicted, archive.dataset == name)
            for name in np.unique(archive.dataset)
        },
        "ci95": bootstrap_ci95(archive.y, predicted, archive.person, k, seed=seed),
        "selective": selective(archive.y, allowed(archive, folds, probabilities), archive.person, seed),
        "clips": archive.n,
        "subjects": len(archive.persons()),
        "folds": len(folds),
        "classes": list(names),
        "notices": [*archive.notices, *count_notices(archive)],
        "incomplete_folds": {name: missing for name, missing in lacking.items() if missing},
        "baselines": dict(baseline_scores(archive, folds) if baselines is None else baselines),
    }


def baseline_scores(archive: Archive, folds: Sequence[Fold]) -> dict[str, dict[str, float]]:
    """{majority, kernel_ridge: {uf1, uar, accuracy}} on the same folds."""
    runs = {"majority": majority_predictions, "kernel_ridge": kernel_ridge_predictions}
    k = len(archive.classes)
    return {
        name: scores(confusion(archive.y, allowed(archive, folds, run(archive, folds)).argmax(axis=1), k))
        for name, run in runs.items()
    }


def _part(archive: Archive, predicted: NDArray[np.int64], rows: NDArray[np.bool_]) -> dict[str, Any]:
    conf = confusion(archive.y[rows], predicted[rows], len(archive.classes))
    return {
        **scores(conf),
        "clips": int(rows.sum()),
        "subjects": len(np.unique(archive.person[rows])),
        "undefined": [archive.classes[c] for c in undefined(conf)],
        "confusion": conf.tolist(),
    }


def count_notices(archive: Archive) -> list[str]:
    """A remark for each data set that is named like a part of MEGC2019 and has other clip counts."""
    found = []
    for name in np.unique(archive.dataset).tolist():
        known = MEGC2019.get(name.lower().replace("-hs", "").replace(" ii", "2"))
        counts = tuple(np.bincount(archive.y[archive.dataset == name], minlength=3).tolist())
        if known is not None and counts != known:
            have, want = "/".join(map(str, counts)), "/".join(map(str, known))
            found.append(
                f"{name} has {have} clips a class and MEGC2019 {want}: not comparable with its figures"
            )
    return found


def linked_persons(archive: Archive) -> dict[str, str]:
    """{"<dataset>/<subject>": person} for the subjects whose person is not that default."""
    pairs = zip(archive.dataset.tolist(), archive.subject.tolist(), archive.person.tolist())
    return {f"{d}/{s}": person for d, s, person in sorted(set(pairs)) if person != f"{d}/{s}"}


def config_sha256(config: Mapping[str, Any]) -> str:
    """Hash of the effective settings; equal settings give equal hashes, whatever their order."""
    return hashlib.sha256(json.dumps(config, sort_keys=True, allow_nan=False).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of what a result rests on, read from package metadata (nothing is imported)."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def disclosure(archive: Archive, result: Mapping[str, Any], protocol: str, fixed: str, privacy: str) -> str:
    """The line that must stand beside a score.

    fixed: how long training ran and who decided that, e.g. "100 epochs, frozen in the recipe"; privacy: what
    the server sees, e.g. "none (central training)".
    """
    meta, parts = archive.meta, result["per_dataset"]
    pool = " + ".join(f"{name} ({part['clips']})" for name, part in parts.items())
    return (
        f"datasets {pool}, all in the training pool; {protocol}, {result['subjects']} persons, "
        f"{result['folds']} folds; {fixed}; seed {result['seed']}; flow {meta.flow}; "
        f"channels {', '.join(meta.channels)}; normalisation {meta.normalisation}; apex {meta.apex}; "
        f"privacy: {privacy}; config {result['config_sha256'][:12]}"
    )


def table(result: Mapping[str, Any]) -> str:
    """The result for people: the run, its slices and both baselines, aligned; the disclosure line below."""
    head = f"{'':<22}{'UF1':>7}{'UAR':>7}{'acc':>7}{'clips':>7}{'people':>7}"
    lines = [head, _line(f"{result['model']} ({result['mode']})", result)]
    lines += [_line(f"  of it {name}", part) for name, part in result["per_dataset"].items()]
    lines += [_line(f"baseline {name}", part) for name, part in result["baselines"].items()]
    low, high = result["ci95"]["uf1"]
    lines.append(
        f"95 % interval over persons: UF1 {low:.3f}..{high:.3f}, UAR {_range(result['ci95']['uar'])}"
    )
    width = max(len(name) for name in result["classes"]) + 2
    lines.append("confusion (rows truth): " + ", ".join(result["classes"]))
    for name, row in zip(result["classes"], result["confusion"]):
        lines.append(f"  {name:<{width}}" + "".join(f"{count:>6}" for count in row))
    if result["undefined"]:
        lines.append(f"undefined, left out of the means: {', '.join(result['undefined'])}")
    for fold, missing in result["incomplete_folds"].items():
        lines.append(f"fold {fold} trained without {', '.join(missing)}: clips of it count as errors")
    return "\n".join([*lines, result["disclosure"]])


def _line(name: str, part: Mapping[str, Any]) -> str:
    sizes = "".join(f"{part[key]:>7}" for key in ("clips", "subjects")) if "clips" in part else ""
    return f"{name:<22}{part['uf1']:>7.3f}{part['uar']:>7.3f}{part['accuracy']:>7.3f}{sizes}"


def _range(pair: Sequence[float]) -> str:
    return f"{pair[0]:.3f}..{pair[1]:.3f}"
