"""Every recogniser by name. A further network is one file and one entry here."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from merveil.mer.errors import InputError
from merveil.mer.recipe import Recipe

if TYPE_CHECKING:
    from merveil.mer.models.stacked import StackedNet


@dataclass(frozen=True)
class ModelInfo:
    """A recogniser: what it is, how big, where from, and how it is trained unless told otherwise."""

    name: str
    kind: str  # "network", "exact" (closed form from sums, federable) or "closed-form" (central only)
    source: str
    help: str
    parameters: Callable[[int, int, int, int], int]  # channels, height, width, classes -> trained numbers
    module: str = ""  # a network's make(shape, classes, options), or the function of a closed form
    function: str = "make"
    recipes: dict[str, Recipe] = field(default_factory=dict)  # "default" and named ones
    options: tuple[str, ...] = ()  # what build() takes

    def build(self, shape: tuple[int, int, int], classes: int, options: dict[str, Any]) -> "StackedNet":
        """The stack of this network; shape is (height, width, channels)."""
        if self.kind != "network":
            raise InputError(f"{self.name} is solved in closed form; it is not a network to build")
        net: StackedNet = getattr(import_module(self.module), self.function)(shape, classes, options)
        return net


def _ststnet_size(channels: int, height: int, width: int, classes: int) -> int:
    cells = ((height + 1) // 3 + 1) // 2 * (((width + 1) // 3 + 1) // 2)
    return 16 * (9 * channels + 1) + 32 + classes * (16 * cells + 1)


MODELS: dict[str, ModelInfo] = {
    "ststnet": ModelInfo(
        name="ststnet",
        kind="network",
        source="Liong et al., FG 2019; christy1206/STSTNet",
        help="three shallow streams over [strain, v, u]; GroupNorm unless norm=batch",
        parameters=_ststnet_size,
        module="merveil.mer.models.ststnet",
        recipes={
            # Chosen by mer/selection.py (tools/select_recipe.py repeats it): nested validation on training
            # persons of the two-part development archive, 4 outer groups with 4 inner folds each, seed 0,
            # over rates 5e-4 to 3e-3, 20 to 200 epochs, label smoothing .1, AdamW decay .1 and 1 (at 2e-3):
            # mean inner UF1 .743. No LOSO score was looked at. From 50 to 80 epochs it differs by a point.
            "default": Recipe(epochs=60, lr=1e-3, class_weights=True),
            # The same for norm=batch (rates 5e-4 and 1e-3, 20 to 120 epochs): mean inner UF1 .734.
            "batch-norm": Recipe(epochs=80, lr=1e-3, class_weights=True),
            # The authors' PyTorch code: Adam 5e-5, batches of 256 unshuffled class by class, 800 epochs,
            # plain cross-entropy, last epoch, no selection. Use with norm=batch.
            "published": Recipe(
                epochs=800, lr=5e-5, optimiser="adam", batch=256, shuffle=False, by_class=True
            ),
        },
        options=("norm",),
    ),
    "flow-mlp": ModelInfo(
        name="flow-mlp",
        kind="network",
        source="merveil's own: a small perceptron on flow normalised clip by clip",
        help="two layers on 14x14 block means of the flow; trains in seconds",
        parameters=lambda channels, height, width, classes: 64 * 588 + 64 * 3 + classes * 65,
        module="merveil.mer.models.flow_mlp",
        recipes={
            # The settings of a search made before this project on the two-part development archive, which
            # looked at LOSO scores (some fifty networks); not chosen again, so expect less on new people.
            "default": Recipe(
                epochs=300,
                lr=5e-3,
                optimiser="adamw",
                weight_decay=0.05,
                label_smoothing=0.1,
                class_weights=True,
                schedule="cosine",
            )
        },
        options=("hidden",),
    ),
    "exact-ridge": ModelInfo(
        name="exact-ridge",
        kind="exact",
        source="merveil's own: a ridge on the Taylor features of an RBF kernel, from sums alone",
        help="three exact sums over all clips, then one linear solve; federated equals central bit for bit",
        parameters=lambda channels, height, width, classes: 677 * classes,
        module="merveil.mer.exact_loso",
        function="exact_ridge_predictions",
        options=("lam", "register"),
    ),
    "kernel-ridge": ModelInfo(
        name="kernel-ridge",
        kind="closed-form",
        source="class-weighted RBF kernel ridge regression; Saunders et al., ICML 1998",
        help="one linear solve a fold on standardised pixels: the floor that networks must beat",
        parameters=lambda channels, height, width, classes: (
            0
        ),  # as many weights as clips, none learnt by steps
        module="merveil.mer.baselines",
        function="kernel_ridge_predictions",
        options=("lam", "gamma"),
    ),
}


def get(name: str) -> ModelInfo:
    """The entry of that name; InputError lists the known names."""
    if name not in MODELS:
        raise InputError(f"there is no model {name!r}; there are: {', '.join(sorted(MODELS))}")
    return MODELS[name]


def recipe_for(name: str, recipe: str = "default") -> Recipe:
    """The frozen training recipe of a model; InputError for an unknown one."""
    known = get(name).recipes
    if recipe not in known:
        raise InputError(f"{name} has no recipe {recipe!r}; it has: {', '.join(known) or 'none'}")
    return known[recipe]
