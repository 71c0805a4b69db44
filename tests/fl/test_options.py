"""Options: presets, layers, the TOML file, and refusal of what makes no run."""

import pytest

from merveil.fl.options import config_toml, read_config, resolve
from merveil.mer.errors import InputError
from merveil.mer.models.registry import recipe_for


def test_the_file_reads_back_to_the_same_options(tmp_path):
    options = resolve({"model_options": {"norm": "group"}, "seed": 11, "lr": 0.1, "clients": "site:5"})
    path = tmp_path / "config.toml"
    path.write_text(config_toml(options.as_dict()), encoding="utf-8")
    again = resolve(read_config(path))
    assert again == options and again.sha256 == options.sha256


def test_the_later_layer_wins_over_the_preset():
    assert resolve({"rounds": 7}, {"rounds": 9}).rounds == 9
    assert resolve({"rounds": 7}, {}).rounds == 7


def test_the_hash_leaves_out_only_what_cannot_change_the_model():
    base = resolve({})
    assert resolve({"checkpoint_every": 3}).sha256 == base.sha256
    assert resolve({"bits": 20}).sha256 != base.sha256


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"round": 3}, "did you mean 'rounds'"),
        ({"rounds": 0}, "between 1 and"),
        ({"rounds": 2.5}, "a whole number"),
        ({"rounds": True}, "a whole number"),
        ({"lr": float("nan")}, "between"),
        ({"lr": "0.1"}, "a number"),
        ({"class_weights": 1}, "true or false"),
        ({"clients": "persons"}, "subject, site"),
        ({"strategy": "fedsgd"}, "fedavg"),
        ({"optimiser": "lion"}, "sgd"),
        ({"strategy": "fedavg", "prox_mu": 0.1}, "fedprox"),
        ({"bits": 41}, "between 4 and 40"),
        ({"seed": -1}, "between 0"),
        ({"model_options": "norm"}, "a table"),
    ],
)
def test_wrong_options_are_named(wrong, word):
    with pytest.raises(InputError, match=word):
        resolve(wrong)


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_config(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("rounds = = 3", encoding="utf-8")
    with pytest.raises(InputError, match=r"bad.toml is not valid TOML"):
        read_config(tmp_path / "bad.toml")


@pytest.mark.parametrize("model", ["ststnet", "flow-mlp"])
def test_the_default_federation_takes_the_central_recipes_steps(model):
    options, recipe = resolve({"model": model}), recipe_for(model)
    assert (options.rounds, options.server_lr) == (recipe.epochs, recipe.lr)
    assert (options.server_schedule, options.label_smoothing) == (recipe.schedule, recipe.label_smoothing)
    assert options.class_weights == recipe.class_weights
    decay = recipe.weight_decay if recipe.optimiser == "adamw" else 0
    assert (options.optimiser, options.lr, options.server_weight_decay) == ("sgd", 1, decay)


def test_an_unknown_model_is_named_before_anything_is_read():
    with pytest.raises(InputError, match="there is no model 'resnet'"):
        resolve({"model": "resnet"})
