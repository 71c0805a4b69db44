"""Every recogniser by name. A further network is one file and one entry here."""

from collections.abc import Callable, Mapping
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
    kind: str  # "network", "exact" (from sums, federable), "closed-form" (central only) or "ensemble"
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
            what = "made of two models" if self.kind == "ensemble" else "solved in closed form"
            raise InputError(f"{self.name} is {what}; it is not a network to build")
        own = dict(options)
        members = int(own.pop("members", 1)) if "members" in self.options else 1
        net: StackedNet = getattr(import_module(self.module), self.function)(shape, classes, own)
        if members == 1:
            return net
        from merveil.mer.models.members import Members

        return Members(net, members)


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
            # Rate, decay and smoothing are those of a search made before this project on the two-part
            # development archive, which looked at LOSO scores (some fifty networks). Steps and `augment` by
            # nested validation on training persons (5 outer groups, 4 inner folds; docs/models.md has all 13
            # configurations): mean inner UF1 .807 with augment and 150 steps; .780 as it was before (300
            # steps, no augment).
            "default": Recipe(
                epochs=150,
                lr=5e-3,
                optimiser="adamw",
                weight_decay=0.05,
                label_smoothing=0.1,
                class_weights=True,
                schedule="cosine",
            )
        },
        options=("hidden", "augment", "rotate", "members"),
    ),
    "flow-softmax": ModelInfo(
        name="flow-softmax",
        kind="network",
        source="merveil's own: softmax regression on flow normalised clip by clip, mirror-even",
        help="the smallest, for differential privacy: one linear layer on 4x4 block means of the flow",
        parameters=lambda channels, height, width, classes: 25 * classes,
        module="merveil.mer.models.flow_softmax",
        recipes={
            # Nested validation on training persons (4 outer groups, 4 inner folds, seed 0) over sides 2 to
            # 14, rates 1e-3 to 1e-1, 10 to 150 epochs, decay and smoothing (some 200 configurations): sides
            # 4 to 10 lie between .791 and .801, 3 at .759. Taken: the smallest of them, and the fewest steps
            # within .005 of its best (.796): .793.
            "default": Recipe(epochs=40, lr=1e-2, class_weights=True),
            # Of federations with --dp: benchmarks/frontier.py --choose --seeds 4 (nested validation under
            # the noise of 40 clients, epsilon 1 and 8, 15 configurations): .556 and .708; the default's
            # rounds and rate: .534 and .685.
            "private": Recipe(epochs=80, lr=2e-2),
        },
        options=("side",),
    ),
    "off-apexnet": ModelInfo(
        name="off-apexnet",
        kind="network",
        source="Gan et al., Signal Processing: Image Communication 2019; PRICAI2021-Off-TANet",
        help="two convolution streams over u and v, two layers of 1,024 units (head=gap: one linear layer)",
        parameters=lambda c, h, w, k: 5144 + 1025 * 1024 + 1024 * (32 * (h // 4) * (w // 4) + 1) + 1025 * k,
        module="merveil.mer.models.off_apexnet",
        recipes={
            # As published but for the epochs, which a fold cannot afford here; not chosen by validation.
            "default": Recipe(epochs=40, lr=3e-4, class_weights=True),
            # For head=gap: nested validation on training persons (2 outer groups, 3 inner folds, seed 0,
            # rates 1e-3 to 1e-2, 20 to 120 epochs: 15 configurations), mean inner UF1 .679.
            "gap": Recipe(epochs=80, lr=1e-2, class_weights=True),
            # The rate and epochs reported for it; whole batches, plain cross-entropy. Use input=bytes.
            "published": Recipe(epochs=3000, lr=1e-4, optimiser="adam"),
        },
        options=("head", "input"),
    ),
    "rcn": ModelInfo(
        name="rcn",
        kind="network",
        source="Xia et al., IEEE TIP 2020 (RCN-A, 32 filters); ParameterFreeRCNs-MicroExpressionRec",
        help="a recurrent convolution with attention from its classifier; GroupNorm unless norm=batch",
        parameters=lambda c, h, w, k: 25 * 32 * c + 32 + 3 * 64 + 33 * 32 + 289 * 32 + k * (800 + 1),
        module="merveil.mer.models.rcn",
        recipes={
            # Nested validation as for off-apexnet (rates 5e-4 to 5e-3, 10 to 80 epochs: 15): inner UF1 .699.
            "default": Recipe(epochs=60, lr=5e-4, class_weights=True),
            # The same for norm=batch (rates 5e-4 and 2e-3, 10 to 60 epochs: 7 looked at): .695.
            "batch-norm": Recipe(epochs=40, lr=2e-3, class_weights=True),
            # README: 20 epochs, SGD 5e-4 with momentum .9 in batches of 64; ours has plain SGD, at ten times
            # the rate, which is what momentum .9 comes to. Use with norm=batch and input=bytes.
            "published": Recipe(epochs=20, lr=5e-3, optimiser="sgd", batch=64),
        },
        options=("norm", "filters", "input"),
    ),
    "dual-inception": ModelInfo(
        name="dual-inception",
        kind="network",
        source="Zhou, Mao, Xue, FG 2019; PRICAI2021-Off-TANet",
        help="two Inception streams over u and v, 1,024 units (head=gap: 23,627 parameters)",
        parameters=lambda c, h, w, k: 23240 + 1024 * (128 * (h // 4) * (w // 4) + 1) + 1025 * k,
        module="merveil.mer.models.dual_inception",
        recipes={
            # Not chosen by validation, which was too slow: the rate of a like network.
            "default": Recipe(epochs=40, lr=3e-4, class_weights=True),
            # Nested validation as for off-apexnet (rates 1e-3 to 1e-2, 20 to 80 epochs: 12): inner UF1 .640.
            "gap": Recipe(epochs=60, lr=1e-2, class_weights=True),
            # Batches of 64, Adam 1e-3, the released code's; its number of epochs. Use input=bytes.
            "published": Recipe(epochs=201, lr=1e-3, batch=64),
        },
        options=("head", "input"),
    ),
    "featref": ModelInfo(
        name="featref",
        kind="network",
        source="Zhou et al., Pattern Recognition 2022: its backbone, from the paper's description",
        help="Inception streams, one attending branch a class, fusion; without the paper's further losses",
        parameters=lambda c, h, w, k: 23240 + k * (128 * 129 + 129 * 64) + k * (64 * k + 1),
        module="merveil.mer.models.dual_inception",
        function="make_featref",
        # Nested validation as for off-apexnet (rates 1e-3 and 3e-3, 20 to 60 epochs: 6): inner UF1 .573,
        # still rising at the last of both.
        recipes={"default": Recipe(epochs=60, lr=3e-3, class_weights=True)},
        options=("input",),
    ),
    "compact-transformer": ModelInfo(
        name="compact-transformer",
        kind="network",
        source="merveil's own: what an HTNet-like network needs at this size; cf. Wang et al., 2024",
        help="two attention blocks over sixteen patches of the flow; LayerNorm only",
        parameters=lambda c, h, w, k: 48 * (c * (h // 4) * (w // 4) + 1) + 768 + 37920 + 96 + 97 * k,
        module="merveil.mer.models.compact_transformer",
        recipes={
            # Nested validation as for off-apexnet (rates 3e-4 to 3e-3, 20 to 120 epochs: 15, inner UF1 .608;
            # then with cosine, smoothing, decay or a running average, 30 to 120 epochs: 15 more): .632.
            "default": Recipe(
                epochs=30,
                lr=3e-3,
                optimiser="adamw",
                weight_decay=0.5,
                label_smoothing=0.1,
                class_weights=True,
                schedule="cosine",
            )
        },
        options=("input",),
    ),
    "exact-ridge": ModelInfo(
        name="exact-ridge",
        kind="exact",
        source="merveil's own: a ridge on the Taylor features of an RBF kernel, from sums alone",
        help="three exact sums over all clips, then one linear solve; federated equals central bit for bit",
        parameters=lambda channels, height, width, classes: 677 * classes,
        module="merveil.mer.exact_loso",
        function="exact_ridge_predictions",
        options=("lam", "register", "mirror"),
    ),
    "ensemble": ModelInfo(
        name="ensemble",
        kind="ensemble",
        source="merveil's own: exact-ridge and flow-mlp",
        help="the mean of the probabilities of exact-ridge and flow-mlp; evaluated, not trained into one run",
        parameters=lambda channels, height, width, classes: 677 * classes + 64 * 588 + 64 * 3 + classes * 65,
        module="merveil.mer.ensemble",
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


def usual_recipe(name: str, options: Mapping[str, Any]) -> str:
    """The recipe that fits a network's options unless one is named: "gap" for head=gap, else "default"."""
    return "gap" if options.get("head") == "gap" and "gap" in get(name).recipes else "default"


def recipe_for(name: str, recipe: str = "default") -> Recipe:
    """The frozen training recipe of a model; InputError for an unknown one."""
    known = get(name).recipes
    if recipe not in known:
        raise InputError(f"{name} has no recipe {recipe!r}; it has: {', '.join(known) or 'none'}")
    return known[recipe]
