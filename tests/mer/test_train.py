"""The trainer: torch's optimisers and loss, coins by label, stacks that do not mix, replay and resume."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from merveil.mer import coins
from merveil.mer.cores import cores
from merveil.mer.errors import InputError
from merveil.mer.models.plain import PlainSTSTNet, load
from merveil.mer.models.stacked import StackedNet, build
from merveil.mer.optim import OptimiserState
from merveil.mer.recipe import Recipe
from merveil.mer.train import balanced_weights, predict_stack, train_stack, workers

TORCH: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


@pytest.fixture(scope="module")
def net() -> StackedNet:
    return build("ststnet", 3, 28, 28, 3)


@pytest.fixture(scope="module")
def clips(net: StackedNet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, prepared clips and labels of 24 clips."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (24, 28, 28, 3), dtype=np.uint8)
    return images, net.prepare(images), rng.integers(0, 3, 24)


def models(net: StackedNet, count: int) -> np.ndarray:
    return np.stack([net.init(s) for s in range(count)])


def rows_of(count: int) -> np.ndarray:
    """Each model leaves out two clips of 24; the last two have far fewer."""
    rows = np.full((count, 22), -1)
    for i in range(count):
        mine = [j for j in range(24) if j // 2 != i][: 22 if i < count - 2 else 5]
        rows[i, : len(mine)] = mine
    return rows


@pytest.mark.parametrize("kind", sorted(TORCH))
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_optimisers_equal_torch(kind: str, decay: float) -> None:
    rng = np.random.default_rng(2)
    start = rng.normal(size=(3, 50)).astype(np.float32)
    ours, theirs = torch.from_numpy(start.copy()), [torch.from_numpy(row.copy()) for row in start]
    state = OptimiserState.fresh(kind, 3, 50)
    rates = np.array([1e-2, 1e-3, 0.3])
    peers = [TORCH[kind]([row], lr=float(rate), weight_decay=decay) for row, rate in zip(theirs, rates)]
    for step in range(6):
        grad = torch.from_numpy(rng.normal(size=(3, 50)).astype(np.float32) * 10.0 ** (step - 4))
        live = np.array([True, step != 2, step < 4])  # a model may sit a step out or stop early
        state.step(ours, grad.clone(), np.where(live, rates, 0), decay)
        for i in np.flatnonzero(live):
            theirs[i].grad = grad[i].clone()
            peers[i].step()
    assert state.steps.tolist() == [6, 5, 4]
    assert torch.allclose(ours, torch.stack(theirs), rtol=2e-6, atol=1e-7)


def test_training_equals_a_plain_loop(net: StackedNet, clips: Any) -> None:
    """Five steps of Adam with weighted loss and dropout coins, against nn.Module and torch.optim."""
    images, x, y = clips
    weight = balanced_weights(y, 3)
    params = models(net, 1)
    rows = np.arange(24)[None]
    found = train_stack(net, params, x, y, rows=rows, steps=5, lr=1e-2, seeds=[9], class_weight=weight[None])
    module = PlainSTSTNet("group")
    load(module, net, torch.from_numpy(params[0]))
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-2)
    order = np.argsort(net.windows.order)  # type: ignore[attr-defined]
    for step in range(5):
        bits = net.keep(coins.Coins([9], [step]), 24)[0][..., order]  # type: ignore[attr-defined]
        keep = torch.from_numpy(bits).float().reshape(24, 16, 10, 10)
        optimiser.zero_grad()
        scores = module(torch.from_numpy(images).permute(0, 3, 1, 2).float(), keep)
        weights = torch.from_numpy(weight).float()
        torch.nn.functional.cross_entropy(scores, torch.from_numpy(y), weight=weights).backward()
        optimiser.step()
    named = dict(module.named_parameters())
    wanted = torch.cat([named[name].detach().flatten() for name, _ in net.layout]).numpy()
    moved = np.abs(wanted - params[0]).max()
    assert moved > 0.02
    assert np.abs(found[0] - wanted).max() < 2e-3 * moved


def test_replay_is_bit_identical_and_the_seed_matters(net: StackedNet, clips: Any) -> None:
    _, x, y = clips
    settings: dict[str, Any] = {"rows": rows_of(4), "steps": 3, "lr": 1e-3, "batch": 8}
    first = train_stack(net, models(net, 4), x, y, seeds=range(4), **settings)
    assert (train_stack(net, models(net, 4), x, y, seeds=range(4), **settings) == first).all()
    assert (train_stack(net, models(net, 4), x, y, seeds=range(4), threads=2, **settings) == first).all()
    other = train_stack(net, models(net, 4), x, y, seeds=[0, 1, 2, 7], **settings)
    assert (other[:3] == first[:3]).all() and (other[3] != first[3]).any()


@pytest.mark.parametrize("batch", [None, 6])
def test_a_result_does_not_depend_on_the_stack(net: StackedNet, clips: Any, batch: int | None) -> None:
    _, x, y = clips
    params, rows = models(net, 11), rows_of(11)
    together = train_stack(net, params, x, y, rows=rows, steps=4, lr=1e-3, seeds=range(11), batch=batch)
    for i in (0, 5, 10):
        alone = train_stack(
            net, params[i : i + 1], x, y, rows=rows[i : i + 1], steps=4, lr=1e-3, seeds=[i], batch=batch
        )
        moved = np.abs(together[i] - params[i]).max()
        assert np.abs(alone[0] - together[i]).max() < 0.02 * moved


def test_both_forms_of_input_agree(net: StackedNet, clips: Any) -> None:
    _, x, y = clips
    params, rows = models(net, 3), rows_of(3)
    own_x, own_y = x[np.maximum(rows, 0)], np.where(rows >= 0, y[np.maximum(rows, 0)], -1)
    settings: dict[str, Any] = {"steps": 2, "lr": 1e-3, "seeds": range(3)}
    shared = train_stack(net, params, x, y, rows=rows, **settings)
    assert np.allclose(train_stack(net, params, own_x, own_y, **settings), shared, atol=1e-5)


def test_padding_rows_and_idle_models_change_nothing(net: StackedNet, clips: Any) -> None:
    _, x, y = clips
    params, rows = models(net, 3), rows_of(3)
    rows[1] = -1
    wider = np.pad(rows, ((0, 0), (0, 9)), constant_values=-1)
    settings: dict[str, Any] = {"lr": 1e-3, "seeds": range(3)}
    found = train_stack(net, params, x, y, rows=rows, steps=[3, 3, 0], **settings)
    assert (found[1] == params[1]).all() and (found[2] == params[2]).all() and (found[0] != params[0]).any()
    assert (train_stack(net, params, x, y, rows=wider, steps=[3, 3, 0], **settings) == found).all()


def test_a_carried_state_continues_bit_for_bit(net: StackedNet, clips: Any) -> None:
    _, x, y = clips
    params, rows = models(net, 2), rows_of(2)
    settings: dict[str, Any] = {"rows": rows, "lr": 1e-3, "seeds": [3, 4], "batch": 4}
    whole = train_stack(net, params, x, y, steps=9, **settings)
    state = OptimiserState.fresh("adam", 2, net.trainable)
    half = train_stack(net, params, x, y, steps=4, state=state, **settings)
    resumed = OptimiserState.from_arrays("adam", state.to_arrays())
    assert (train_stack(net, half, x, y, steps=5, state=resumed, **settings) == whole).all()


def test_batch_statistics_are_carried_in_the_vector(clips: Any) -> None:
    images, _, y = clips
    net = build("ststnet", 3, 28, 28, 3, norm="batch")
    params = models(net, 2)
    found = train_stack(
        net, params, net.prepare(images), y, rows=rows_of(2)[:, :5], steps=3, lr=1e-3, seeds=[0, 1]
    )
    running = net.views(torch.from_numpy(found))
    assert (running["norm1.running_mean"] > 0).all() and (running["norm1.running_var"] > 1).all()
    assert predict_stack(net, found, net.prepare(images)).shape == (2, 24, 3)


def test_prox_term_holds_the_model_near_its_anchor(net: StackedNet, clips: Any) -> None:
    _, x, y = clips
    params = models(net, 1)
    settings: dict[str, Any] = {
        "rows": np.arange(24)[None], "steps": 8, "lr": 1e-3, "seeds": [0], "optimiser": "sgd",
    }  # fmt: skip
    free = train_stack(net, params, x, y, **settings)
    held = train_stack(net, params, x, y, prox_mu=100.0, anchor=params, **settings)
    assert np.linalg.norm(held - params) < 0.9 * np.linalg.norm(free - params)
    one: dict[str, Any] = {**settings, "steps": 1}
    start = train_stack(net, params, x, y, **one)
    off = params + np.float32(0.01)
    pulled = train_stack(net, params, x, y, prox_mu=1.0, anchor=off, **one)
    assert np.allclose(pulled - start, 1e-3 * 0.01, atol=2e-6)  # -lr * mu * (w - anchor)


def test_each_epoch_shows_every_clip_once(net: StackedNet, clips: Any, monkeypatch: Any) -> None:
    _, x, y = clips
    seen: list[np.ndarray] = []
    real = type(net).gradients

    def spy(self: Any, params: Any, pool: Any, rows: np.ndarray, *rest: Any) -> Any:
        seen.append(rows[0][rows[0] >= 0])
        return real(self, params, pool, rows, *rest)

    monkeypatch.setattr(type(net), "gradients", spy)
    train_stack(net, models(net, 1), x, y, rows=np.arange(23)[None], steps=6, lr=1e-3, seeds=[1], batch=10)
    assert [len(s) for s in seen] == [10, 10, 3, 10, 10, 3]
    first, second = np.concatenate(seen[:3]), np.concatenate(seen[3:])
    assert sorted(first) == sorted(second) == list(range(23)) and (first != second).any()
    seen.clear()
    train_stack(
        net, models(net, 1), x, y, rows=np.arange(23)[None], steps=3, lr=1e-3, seeds=[1], batch=10,
        shuffle=False,
    )  # fmt: skip
    assert np.concatenate(seen).tolist() == list(range(23))


def test_balanced_weights_are_one_on_average_and_zero_for_an_absent_class() -> None:
    labels = np.array([0, 0, 0, 2])
    weights = balanced_weights(labels, 3)
    assert weights.tolist() == pytest.approx([4 / 6, 0, 2])
    assert weights[labels].mean() == pytest.approx(1)


def test_cosine_goes_to_zero(net: StackedNet, clips: Any) -> None:
    _, x, y = clips
    rates: list[float] = []
    state = OptimiserState.fresh("sgd", 1, net.trainable)
    state.step = lambda _p, _g, rate, _d: rates.append(float(rate[0]))  # type: ignore[method-assign]
    train_stack(
        net, models(net, 1), x, y, rows=np.arange(4)[None], steps=4, lr=2.0, seeds=[0], state=state,
        schedule="cosine",
    )  # fmt: skip
    assert rates == pytest.approx([2.0, 1 + np.sqrt(0.5), 1.0, 1 - np.sqrt(0.5)])


def test_coins_are_fair_labelled_and_independent_of_padding() -> None:
    mask = coins.keep_mask(coins.stream(1, "dropout", 3), 200, 588, 0.2)
    assert abs(mask.mean() - 0.8) < 0.005
    assert (coins.keep_mask(coins.stream(1, "dropout", 3), 50, 588, 0.2) == mask[:50]).all()
    bits = np.unpackbits(coins.keep_bits(coins.stream(1, "dropout", 3), 100, 1600))
    assert abs(bits.mean() - 0.5) < 0.005
    draws = [coins.stream(s, label, t).random_raw() for s in (0, 1) for label in "ab" for t in (0, 1)]
    assert len(set(draws)) == 8
    assert len({coins.derive(s, label) for s in range(50) for label in ("fold|a", "fold|b")}) == 100


def test_workers_obey_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert workers() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    assert workers() == cores() >= 1


def test_cores_are_those_of_this_process_or_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 4, 5}, raising=False)
    assert cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1


@pytest.mark.parametrize(
    "change, says",
    [
        ({"seeds": [1]}, "as many seeds"),
        ({"optimiser": "lion"}, "there is no optimiser 'lion'"),
        ({"schedule": "step"}, "there is no schedule 'step'"),
        ({"prox_mu": 1.0}, "anchor"),
        ({"rows": np.array([[-1, 3], [1, 2]])}, "padding"),
        ({"rows": None}, "without rows"),
        ({"y": np.full(24, 3)}, "labels lie in 0..2"),
        ({"params": np.zeros((2, 5), np.float32)}, "vectors of 1683"),
    ],
)
def test_misuse_is_named(net: StackedNet, clips: Any, change: dict[str, Any], says: str) -> None:
    given: dict[str, Any] = {
        "params": models(net, 2), "x": clips[1], "y": clips[2], "rows": rows_of(2), "steps": 1, "lr": 1e-3,
        "seeds": [0, 1],
    }  # fmt: skip
    given |= change
    with pytest.raises(InputError, match=says):
        train_stack(net, **given)


@pytest.mark.parametrize(
    "change, says",
    [
        ({"epochs": 0}, "epochs >= 1"), ({"lr": -1.0}, "lr > 0"), ({"batch": 0}, "at least 1 clip"),
        ({"label_smoothing": 1.0}, "label_smoothing"), ({"optimiser": "x"}, "no optimiser"),
        ({"schedule": "x"}, "no schedule"),
    ],
)  # fmt: skip
def test_an_impossible_recipe_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Recipe(**{"epochs": 1, "lr": 0.1, **change})


def test_recipe_options_replace_fields_and_leave_the_rest() -> None:
    recipe, rest = Recipe(epochs=3, lr=0.1).with_options({"epochs": 7, "norm": "batch"})
    assert (recipe.epochs, recipe.lr, rest) == (7, 0.1, {"norm": "batch"})
    assert Recipe(epochs=3, lr=0.1, batch=256).steps(300) == 6 and recipe.steps(300) == 7


def test_ema_averages_the_models_after_each_step() -> None:
    from merveil.mer.train import averaged

    net = build("flow-mlp", 3, 28, 28, 3)
    x = net.prepare(np.random.default_rng(0).integers(0, 256, (6, 28, 28, 3), dtype=np.uint8))
    params, average, seen = net.init(0)[None], np.zeros((1, net.size), np.float32), []
    state = OptimiserState.fresh("adam", 1, net.trainable)
    common: dict[str, Any] = {
        "rows": np.arange(6)[None],
        "steps": 1,
        "lr": 1e-2,
        "seeds": [0],
        "state": state,
    }
    for _ in range(3):
        params = train_stack(net, params, x, np.arange(6) % 3, ema=0.8, average=average, **common)
        seen.append(params[0])
    share = np.array([0.64, 0.8, 1.0])
    wanted = share @ np.array(seen) / share.sum()
    assert np.allclose(averaged(average, 0.8, state.steps)[0], wanted, atol=1e-5)
    with pytest.raises(InputError, match="ema"):
        train_stack(net, params, x, np.arange(6) % 3, ema=0.8, **common)


def test_a_shifted_bias_is_a_prior_on_the_scores() -> None:
    from merveil.mer.train import with_prior

    shares = np.array([[0.5, 0.5, 0.0]])
    for name in ("ststnet", "flow-mlp", "rcn", "featref", "compact-transformer"):
        net = build(name, 3, 28, 28, 3)
        params = net.init(0)[None]
        x = torch.from_numpy(net.prepare(np.random.default_rng(0).integers(0, 256, (2, 28, 28, 3), np.uint8)))
        before, after = (
            net.logits(torch.from_numpy(p), x, train=False)
            for p in (params, with_prior(net, params, shares, 0.5))
        )
        assert torch.allclose(after - before, 0.5 * torch.tensor([-0.6931, -0.6931, 0.0]), atol=1e-3)


def test_sam_takes_the_gradient_at_the_end_of_a_step_up() -> None:
    net = build("flow-mlp", 3, 28, 28, 3)
    x = net.prepare(np.random.default_rng(0).integers(0, 256, (6, 28, 28, 3), dtype=np.uint8))
    labels, params = np.arange(6) % 3, np.stack([net.init(0), net.init(1)])
    rows = np.stack([np.arange(6), np.array([0, 1, 2, 3, -1, -1])])
    common: dict[str, Any] = {"rows": rows, "steps": 1, "seeds": [0, 1], "optimiser": "sgd"}
    here = params - train_stack(net, params, x, labels, lr=1.0, **common)
    length = np.linalg.norm(here, axis=1, keepdims=True)
    raised = (params + 0.5 * here / length).astype(np.float32)
    there = raised - train_stack(net, raised, x, labels, lr=1.0, **common)
    found = params - train_stack(net, params, x, labels, lr=1.0, sam=0.5, **common)
    assert np.allclose(found, there, atol=1e-5)
    assert not np.allclose(found, here, atol=1e-3)
    with pytest.raises(InputError, match="sam"):
        Recipe(epochs=1, lr=1e-3, sam=-1.0)
