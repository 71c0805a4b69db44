"""A client's gate: what it refuses by name, what it remembers, and that honest rounds pass."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from merveil.fl.gate import LENIENT, ModelGate, architecture, rows_of, suspicion
from merveil.fl.update import Layout
from merveil.protocols.errors import AbortCode, Aborted, LocalError

LAYOUT = Layout.of([("first.weight", (32, 200)), ("first.bias", (32,)), ("last.weight", (3, 32))])
NET = architecture("net", {}, LAYOUT)


def model(seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(0, 0.1, LAYOUT.size)


def with_rows(rows: Any, seed: int = 0) -> Any:
    found = model(seed)
    found[: 32 * 200] = rows.ravel()
    return found


def bins() -> Any:
    return np.full((32, 200), 1 / 200)


def trap() -> Any:
    rng = np.random.default_rng(1)
    low = np.abs(rng.normal(size=(32, 100)))
    return rng.permuted(np.concatenate([-low, 0.95 * low], axis=1), axis=1)


def refused(gate: ModelGate, params: Any, shape: str = NET, **how: Any) -> AbortCode:
    with pytest.raises(Aborted) as error:
        gate.admit(LAYOUT, params, shape, **how)
    assert error.value.culprits == {0}
    return error.value.code


def test_an_honest_training_passes() -> None:
    gate, params = ModelGate(), model()
    gate.admit(LAYOUT, params, NET, training="a", start=params)
    for round_ in range(20):
        params = params + np.random.default_rng(round_).normal(0, 0.01, params.size)
        gate.admit(LAYOUT, params, NET, training="a")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_model_without_numbers_is_refused(value: float) -> None:
    params = model()
    params[-1] = value
    for gate in (ModelGate(), ModelGate(bounds=LENIENT)):
        assert refused(gate, params) is AbortCode.INPUT_NOT_FINITE


def test_another_architecture_is_refused_pinned_or_kept(tmp_path: Path) -> None:
    other = architecture("net", {"head": "gap"}, LAYOUT)
    assert other != NET != architecture("net", {}, Layout.of(LAYOUT.entries[:2]))
    assert refused(ModelGate(pin=other), model()) is AbortCode.ARCH_MISMATCH
    first = ModelGate(tmp_path / "gate.npz")
    first.admit(LAYOUT, model(), NET)
    assert refused(ModelGate(tmp_path / "gate.npz"), model(), other) is AbortCode.ARCH_MISMATCH
    assert refused(first, model()[:-1]) is AbortCode.ARCH_MISMATCH
    (tmp_path / "gate.npz").unlink()
    ModelGate(tmp_path / "gate.npz").admit(LAYOUT, model(), other)


@pytest.mark.parametrize("rows", [bins(), trap()], ids=["bins", "trap"])
def test_crafted_rows_are_refused_first_and_later(rows: Any) -> None:
    assert refused(ModelGate(), with_rows(rows)) is AbortCode.MODEL_MISMATCH
    gate = ModelGate()
    gate.admit(LAYOUT, model(), NET, training="a")
    assert refused(gate, with_rows(rows), training="a") is AbortCode.MODEL_MISMATCH
    ModelGate(bounds=LENIENT).admit(LAYOUT, with_rows(rows), NET)


def test_a_model_from_nowhere_is_refused_within_a_training(tmp_path: Path) -> None:
    path = tmp_path / "gate.npz"
    ModelGate(path).admit(LAYOUT, model(0), NET, training="a")
    assert refused(ModelGate(path), model(1), training="a") is AbortCode.MODEL_MISMATCH
    ModelGate(path).admit(LAYOUT, model(0) * 1.1, NET, training="a")  # refused models are not remembered
    ModelGate(path).admit(LAYOUT, model(2), NET, training="b")


def test_noise_turns_layers_and_everything_else_is_still_asked() -> None:
    gate = ModelGate()
    gate.admit(LAYOUT, model(0), NET, training="a", noisy=True)
    gate.admit(LAYOUT, model(1), NET, training="a", noisy=True)  # from nowhere, as far as a cosine can tell
    for crafted in (bins(), trap()):
        assert refused(gate, with_rows(crafted), training="a", noisy=True) is AbortCode.MODEL_MISMATCH
    assert refused(gate, model(), "other", noisy=True) is AbortCode.ARCH_MISMATCH
    assert refused(gate, model(1), start=model(0), noisy=True) is AbortCode.MODEL_MISMATCH
    assert refused(gate, model(3), training="a") is AbortCode.MODEL_MISMATCH


def test_the_first_model_must_be_the_one_that_the_seed_gives() -> None:
    gate = ModelGate()
    assert refused(gate, model(1), start=model(0)) is AbortCode.MODEL_MISMATCH
    gate.admit(LAYOUT, model(0).astype(np.float32), NET, training="a", start=model(0))
    gate.admit(LAYOUT, model(1), NET, training="a", start=model(1))  # a training begun anew


def test_trained_leaning_rows_pass_where_they_came_about_slowly() -> None:
    lean = trap()
    assert rows_of(lean).lean < -6 < 0  # type: ignore[union-attr]
    assert suspicion(LAYOUT, with_rows(lean), with_rows(lean * 1.01), LENIENT) == ""
    assert "lean" in suspicion(LAYOUT, with_rows(lean), None, ModelGate()._bounds)
    assert suspicion(LAYOUT, with_rows(lean), with_rows(lean * 1.01), ModelGate()._bounds) == ""


def test_a_damaged_memory_is_named(tmp_path: Path) -> None:
    path = tmp_path / "gate.npz"
    path.write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(LocalError, match="is damaged"):
        ModelGate(path)
