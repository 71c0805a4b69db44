"""ensemble: half of each part, in both modes; recipes that fit a network's form."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from merveil.fl import evaluate
from merveil.fl.options import resolve
from merveil.mer import loso
from merveil.mer.data.archive import Archive
from merveil.mer.data.splits import kfold
from merveil.mer.ensemble import PARTS
from merveil.mer.errors import InputError
from merveil.mer.models.registry import MODELS, usual_recipe


@pytest.mark.parametrize("module, name", [(loso, "central_predictions"), (evaluate, "federated_predictions")])
def test_it_is_the_mean_of_its_parts(
    toy_archive: Archive, monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    real, asked = getattr(module, name), []
    p = {PARTS[0]: np.array([0.5, 0.25, 0.25]), PARTS[1]: np.array([0.125, 0.75, 0.125])}

    def part(archive: Archive, folds: Any, *, model: str, seed: int, **more: Any) -> Any:
        asked.append((model, seed))
        keys = ("clients", "client_rule", "clients_in_a_fold", "guarantee", "privacy", "drop_rate")
        info = {**dict.fromkeys(keys), "rounds": 3, "parameters": 5, "options_sha256": "x"}
        return SimpleNamespace(probabilities=np.tile(p[model], (archive.n, 1)), info=info)

    monkeypatch.setattr(module, name, part)
    run = real(toy_archive, kfold(toy_archive, 2), model="ensemble", seed=7)
    assert asked == [(part_, 7) for part_ in PARTS]
    assert np.array_equal(run.probabilities, np.tile([0.3125, 0.5, 0.1875], (toy_archive.n, 1)))
    with pytest.raises(InputError, match="trained as"):
        real(toy_archive, kfold(toy_archive, 2), model="ensemble", options={"lr": 1.0})


def test_a_head_brings_its_recipe_to_both_modes() -> None:
    assert (
        usual_recipe("off-apexnet", {"head": "gap"}) == "gap" and usual_recipe("off-apexnet", {}) == "default"
    )
    assert usual_recipe("rcn", {"head": "gap"}) == "default"
    recipe = MODELS["off-apexnet"].recipes["gap"]
    chosen = resolve({"model": "off-apexnet", "model_options": {"head": "gap"}})
    assert (chosen.rounds, chosen.server_lr) == (recipe.epochs, recipe.lr)
