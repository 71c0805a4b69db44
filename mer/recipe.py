"""How a network is trained: values that are frozen before a test fold is looked at. No torch here."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from merveil.mer.errors import InputError

OPTIMISERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True)
class Recipe:
    """Epochs over the training clips and the optimiser's settings.

    batch: clips a step, None for all of them; shuffle: a new order each epoch (of no effect on full
    batches); by_class: the clips stand class by class, as the published code reads its folders, which
    matters where they are not shuffled; class_weights: each class weighs n/(k*n_c), from the training clips;
    schedule: of the rate, over all steps. ema: share that the running average of the weights keeps at each
    step, 0 for none; the average is what predicts. logit_tau: training scores get tau * log(class share)
    added (logit adjustment, Menon et al., ICLR 2021; 1 is balanced softmax, Ren et al., NeurIPS 2020).
    sam: length of the step up the gradient at whose end the gradient is taken, 0 for none (sharpness-aware
    minimisation, Foret et al., ICLR 2021); it doubles the arithmetic. apex_jitter: chance that a clip is
    shown, at a step, by the flow to a frame near its apex; needs an archive that has them.
    """

    epochs: int
    lr: float
    optimiser: str = "adam"
    batch: int | None = None
    shuffle: bool = True
    by_class: bool = False
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    class_weights: bool = False
    schedule: str = "constant"
    ema: float = 0.0
    logit_tau: float = 0.0
    sam: float = 0.0
    apex_jitter: float = 0.0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.lr <= 0 or self.weight_decay < 0:
            raise InputError("a recipe needs epochs >= 1, lr > 0 and weight_decay >= 0")
        if self.batch is not None and self.batch < 1:
            raise InputError("a recipe's batch is at least 1 clip")
        if not (0 <= self.ema < 1 and 0 <= self.logit_tau <= 10):
            raise InputError("a recipe's ema lies in [0, 1), its logit_tau in 0..10")
        if not 0 <= self.sam <= 10:
            raise InputError("a recipe's sam lies in 0..10")
        if not 0 <= self.apex_jitter <= 1:
            raise InputError("a recipe's apex_jitter is a chance in 0..1")
        if not 0 <= self.label_smoothing < 1:
            raise InputError("label_smoothing lies in [0, 1)")
        if self.optimiser not in OPTIMISERS:
            raise InputError(f"there is no optimiser {self.optimiser!r}; there are: {', '.join(OPTIMISERS)}")
        if self.schedule not in SCHEDULES:
            raise InputError(f"there is no schedule {self.schedule!r}; there are: {', '.join(SCHEDULES)}")

    def steps(self, clips: int) -> int:
        """Optimiser steps on that many training clips."""
        return self.epochs * (1 if self.batch is None else -(-clips // self.batch))

    def with_options(self, options: dict[str, Any]) -> tuple["Recipe", dict[str, Any]]:
        """This recipe with the fields named in options replaced, and the options that are not fields."""
        names = {f.name for f in fields(self)}
        own = {k: v for k, v in options.items() if k in names}
        return replace(self, **own), {k: v for k, v in options.items() if k not in names}

    def to_json(self) -> dict[str, Any]:
        """Plain values, for manifests and hashes."""
        return asdict(self)
