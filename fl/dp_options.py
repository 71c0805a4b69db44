"""Which modes of differential privacy there are, with which schemes, and which options they need."""

from typing import TYPE_CHECKING

from merveil.mer.errors import InputError

if TYPE_CHECKING:
    from merveil.fl.options import TrainOptions

SUMS = ("distributed", "central")  # noise on the sum over clients
DP_MODES = ("none", *SUMS, "sgd", *(f"{mode}+sgd" for mode in SUMS))
DP_NOISES = ("skellam", "gaussian")
SUM_OPTIONS = ("dp_noise",)
SGD_OPTIONS = ("sgd_rate", "sgd_accountant", "sgd_epsilon", "sgd_delta", "sgd_clip")

# scheme -> what it composes with. A scheme whose sums are exact integers modulo a power of two, and whose
# parameters tell a floor of honest inputs (`params.honest`), takes all; a new one is one line here.
SCHEMES: dict[str, tuple[str, ...]] = {
    "plain": ("distributed", "central", "sgd"),
    "secagg": ("distributed", "central", "sgd"),
    "secagg+": ("distributed", "central", "sgd"),
    "lattice": ("distributed", "central", "sgd"),
    "ckks": ("central", "sgd"),  # distributed noise until its key shares are shown to add nothing
}


def parts(mode: str) -> tuple[str, ...]:
    """`distributed+sgd` -> (distributed, sgd). InputError for an unknown mode."""
    if mode not in DP_MODES:
        raise InputError(f"--dp {mode} is not known: use one of {', '.join(DP_MODES)}")
    return () if mode == "none" else tuple(mode.split("+"))


def check_scheme(mode: str, scheme: str) -> None:
    """InputError unless the scheme composes with every part of the mode."""
    for part in parts(mode):
        able = [name for name, modes in SCHEMES.items() if part in modes]
        if scheme not in able:
            raise InputError(f"--dp {mode} runs with {', '.join(able)}, not with {scheme}")


def check(options: "TrainOptions") -> None:
    """InputError where the options would break the guarantee, or have no effect."""
    found = parts(options.dp)
    if not found:
        given = [name for name in ("epsilon", "delta", "norm_clip") if getattr(options, name)]
        if given:
            raise InputError(f"{given[0]} has no effect without --dp: name one of {', '.join(DP_MODES[1:])}")
    for name in ("epsilon", "delta", "norm_clip"):
        if found and getattr(options, name) <= 0:
            raise InputError(f"--dp {options.dp} needs a positive --{name.replace('_', '-')}")
    check_scheme(options.dp, options.scheme)
    if found and options.class_weights:
        raise InputError(
            "class weights come from a count over all clients that has no noise: use --no-class-weights"
        )
    _check_unit(options)
    _check_sgd(options)
    if options.dp_noise not in DP_NOISES:
        raise InputError(f"dp_noise {options.dp_noise!r} is not known: use one of {', '.join(DP_NOISES)}")


def _check_unit(options: "TrainOptions") -> None:
    """A unit is what the mode protects, by its own noise."""
    if not options.private:
        return
    if not options.noisy_sums:
        if options.dp_unit != "clip":
            raise InputError(f"--dp sgd protects a clip, not a {options.dp_unit}: use --dp-unit clip")
        return
    if options.dp_unit not in ("client", "person"):
        raise InputError(
            f"--dp {options.dp} protects a client by its sums, not a {options.dp_unit}: use --dp-unit client"
        )
    if options.dp_unit == "person" and options.clients != "subject":
        raise InputError("--dp-unit person needs --clients subject, where a client is one person")


def _check_sgd(options: "TrainOptions") -> None:
    """The public constants of DP-SGD, and no idle ones."""
    from merveil.fl.privacy_sgd import ACCOUNTANTS

    given = [name for name in ("sgd_epsilon", "sgd_delta", "sgd_clip") if getattr(options, name)]
    if not options.sgd:
        if given:
            raise InputError(f"{given[0]} has no effect without --dp sgd on top of another mode")
        return
    if not options.noisy_sums and given:
        raise InputError(
            f"--dp sgd alone takes --{given[0].removeprefix('sgd_').replace('clip', 'norm-clip')}; "
            f"{given[0]} is for distributed+sgd and central+sgd"
        )
    if options.noisy_sums and options.sgd_clip <= 0:
        raise InputError(
            f"--dp {options.dp} needs sgd_clip, the bound of one clip's gradient, beside --norm-clip"
        )
    if options.batch < 1:
        raise InputError("--dp sgd needs --batch: a public number that each step's sum is divided by")
    if not 0 < options.sgd_rate <= 1:
        raise InputError(f"sgd_rate is the chance of a clip to be in a step, above 0, not {options.sgd_rate}")
    if options.sgd_accountant not in ACCOUNTANTS:
        raise InputError(
            f"sgd_accountant {options.sgd_accountant!r} is not known: use one of {', '.join(ACCOUNTANTS)}"
        )
