"""Central training over folds: every fold's model at once, each clip predicted once by one that never saw it.

No label of a held-out clip reaches the trainer, nothing is evaluated before the last epoch of all folds,
and nothing is chosen by what is held out: the recipe is fixed before the first step (MER.md section 6, rules
1-4).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from merveil.mer.coins import derive
from merveil.mer.data.splits import check_disjoint, missing_classes
from merveil.mer.errors import InputError
from merveil.mer.models.registry import ModelInfo, get, recipe_for, usual_recipe
from merveil.mer.recipe import Recipe

if TYPE_CHECKING:
    from merveil.mer.data.archive import Archive
    from merveil.mer.data.splits import Fold
    from merveil.mer.models.stacked import Floats, StackedNet

Progress = Callable[[int, int], None]  # (steps done, steps in all)


@dataclass(frozen=True, eq=False)
class CentralRun:
    """probabilities: float64 [n, K], row i by the model of the fold that holds clip i out. info: figures.

    models: the network and its parameters [folds, size], where they were asked for.
    """

    probabilities: NDArray[np.float64]
    info: dict[str, Any]
    models: "tuple[StackedNet, Floats] | None" = None


def central_predictions(
    archive: "Archive",
    folds: Sequence["Fold"],
    *,
    model: str = "ststnet",
    seed: int = 0,
    recipe: Recipe | str | None = None,
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    keep_models: bool = False,
) -> CentralRun:
    """Train one model a fold on its training clips and predict its held-out clips once.

    recipe: a Recipe, the name of one of the model's, or None for its frozen default. options: fields of
    Recipe to change (epochs, lr, ...), `threads`, and the model's own (norm). Rows of clips that no fold
    holds out are NaN. keep_models: keep a network's models of all folds.
    A fold whose training clips lack a class trains on those present and is listed in
    info["incomplete_folds"]. Raises InputError for unknown names and options, a person on both sides of a
    fold, a training part of one class, or training that diverged.
    """
    info = get(model)
    for fold in folds:
        check_disjoint(archive, fold)
        if len(archive.classes) - len(missing_classes(archive, fold)) < 2:
            raise InputError(f"fold {fold.name} trains on fewer than two classes; recognition needs two")
    if info.kind == "ensemble":
        return _ensemble(archive, folds, seed, dict(options or {}), progress)
    if info.kind in ("closed-form", "exact"):
        return _closed_form(archive, folds, info, dict(options or {}))
    if not isinstance(recipe, Recipe):
        usual = usual_recipe(model, options or {})
        recipe = recipe_for(model, usual if recipe in (None, "default") else recipe)
    recipe, rest = recipe.with_options(dict(options or {}))
    threads = rest.pop("threads", None)
    height, width, channels = archive.x.shape[1:]
    net = info.build((height, width, channels), len(archive.classes), rest)
    stack = FoldStack(archive, folds, net, recipe, seed, threads)
    stack.train(recipe.epochs, progress)
    about = {**_about(archive, folds, net), **stack.about(), "options": rest}
    return CentralRun(stack.predictions(), about, (net, stack.final()) if keep_models else None)


class FoldStack:
    """The models of all folds as one stack; trains on the folds' training rows and on nothing else."""

    def __init__(
        self,
        archive: "Archive",
        folds: Sequence["Fold"],
        net: "StackedNet",
        recipe: Recipe,
        seed: int,
        threads: int | None = None,
    ) -> None:
        from merveil.mer.optim import OptimiserState
        from merveil.mer.train import balanced_weights, prepared, with_prior

        self.net, self.recipe, self.folds, self.threads = net, recipe, list(folds), threads
        self.shape = (archive.n, len(archive.classes))
        self.x, self.versions = prepared(net, archive, recipe.apex_jitter)
        self.seeds = [derive(seed, f"fold|{fold.name}") for fold in folds]
        self.params = np.stack([net.init(s) for s in self.seeds])
        self.average = np.zeros_like(self.params) if recipe.ema else None
        self.state = OptimiserState.fresh(recipe.optimiser, len(folds), net.trainable)
        trains = [np.sort(fold.train) for fold in folds]
        if recipe.by_class:
            trains = [rows[np.argsort(archive.y[rows], kind="stable")] for rows in trains]
        self.rows = np.full((len(folds), max(map(len, trains))), -1)
        self.labels = np.full(archive.n, -1)  # training labels only; -1 where no fold trains on a clip
        for i, rows in enumerate(trains):
            self.rows[i, : len(rows)] = rows
            self.labels[rows] = archive.y[rows]
        self.weights = None
        if recipe.class_weights:
            self.weights = np.stack([balanced_weights(archive.y[rows], self.shape[1]) for rows in trains])
        counts = np.stack([np.bincount(archive.y[rows], minlength=self.shape[1]) for rows in trains])
        self.shares = counts / counts.sum(1, keepdims=True)
        if recipe.logit_tau:
            self.params = with_prior(net, self.params, self.shares, recipe.logit_tau)

    def train(self, epochs: int, progress: Progress | None = None) -> None:
        """Go on for that many epochs of each fold. Raises InputError where the numbers left the floats."""
        from merveil.mer.train import train_stack

        recipe = self.recipe
        clips = (self.rows >= 0).sum(1)
        per_epoch = [1 if recipe.batch is None else -(-int(n) // recipe.batch) for n in clips]
        self.params = train_stack(
            self.net,
            self.params,
            self.x,
            self.labels,
            rows=self.rows,
            steps=[epochs * count for count in per_epoch],
            lr=recipe.lr,
            seeds=self.seeds,
            state=self.state,
            batch=recipe.batch,
            shuffle=recipe.shuffle,
            class_weight=self.weights,
            label_smoothing=recipe.label_smoothing,
            weight_decay=recipe.weight_decay,
            schedule=recipe.schedule,
            ema=recipe.ema,
            average=self.average,
            sam=recipe.sam,
            versions=self.versions,
            apex_jitter=recipe.apex_jitter,
            threads=self.threads,
            progress=progress,
        )
        for fold, values in zip(self.folds, self.params):
            if not np.isfinite(values).all():
                raise InputError(f"training diverged in fold {fold.name}; use a smaller learning rate")

    def final(self) -> "Floats":
        """The models that predict, [folds, size]: averaged, freed of the prior, as the recipe says."""
        from merveil.mer.train import averaged, with_prior

        found = self.params
        if self.average is not None:
            found = averaged(self.average, self.recipe.ema, self.state.steps)
        if self.recipe.logit_tau:
            found = with_prior(self.net, found, self.shares, -self.recipe.logit_tau)
        return found

    def predictions(self) -> NDArray[np.float64]:
        """Probabilities float64 [n,K] of every held-out clip by its fold's model; NaN elsewhere."""
        from merveil.mer.train import predict_stack

        found, params = np.full(self.shape, np.nan), self.final()
        for i, fold in enumerate(self.folds):
            found[fold.test] = predict_stack(self.net, params[i : i + 1], self.x[fold.test], 1)[0]
        return found

    def about(self) -> dict[str, Any]:
        """What was trained, for the result's info."""
        from merveil.mer.train import workers

        return {
            "recipe": self.recipe.to_json(),
            "epochs": self.recipe.epochs,
            "steps": int(self.state.steps.max()),
            "threads": self.threads or workers(),
        }


def _about(archive: "Archive", folds: Sequence["Fold"], net: "StackedNet") -> dict[str, Any]:
    names = archive.classes
    lacking = {fold.name: [names[c] for c in missing_classes(archive, fold)] for fold in folds}
    return {
        "model": net.name,
        "parameters": net.trainable,
        "folds": len(folds),
        "incomplete_folds": {name: missing for name, missing in lacking.items() if missing},
    }


def _ensemble(
    archive: "Archive",
    folds: Sequence["Fold"],
    seed: int,
    options: dict[str, Any],
    progress: Progress | None,
) -> CentralRun:
    from merveil.mer.ensemble import PARTS, mixed

    if options:
        raise InputError(f"ensemble has no option {next(iter(options))!r}; its parts are trained as alone")
    runs = [central_predictions(archive, folds, model=m, seed=seed, progress=progress) for m in PARTS]
    about = {"model": "ensemble", "folds": len(folds), "options": {}, "parts": [run.info for run in runs]}
    return CentralRun(mixed([run.probabilities for run in runs]), about)


def _closed_form(
    archive: "Archive", folds: Sequence["Fold"], info: ModelInfo, options: dict[str, Any]
) -> CentralRun:
    for key in options:
        if key not in info.options:
            raise InputError(f"{info.name} has no option {key!r}; it has: {', '.join(info.options)}")
    solve = getattr(import_module(info.module), info.function)
    about = {"model": info.name, "folds": len(folds), "options": options}
    return CentralRun(solve(archive, folds, **options), about)
