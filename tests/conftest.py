"""Fixtures for every test folder: a small labelled archive of made-up flow images, learnable but not easy."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from merveil.mer.data.archive import Archive, make_archive, save_archive

# Where the muscles of each class pull: (row, column, pull up-down, pull left-right), as shares of the side.
PULLS = {
    0: ((0.30, 0.40, 1.0, 0.5), (0.30, 0.60, 1.0, -0.5)),  # brows lowered and drawn together
    1: ((0.72, 0.33, -0.8, -0.8), (0.72, 0.67, -0.8, 0.8)),  # mouth corners up and out
    2: ((0.28, 0.30, -1.0, 0.0), (0.28, 0.70, -1.0, 0.0), (0.80, 0.50, 0.9, 0.0)),  # brows up, jaw down
}


def _bumps(size: int, pulls: Any, width: float) -> np.ndarray:
    rows, columns = np.mgrid[0:size, 0:size] / size
    field = np.zeros((size, size, 2))
    for row, column, v, u in pulls:
        bump = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * width**2))
        field += bump[..., None] * (u, v)
    return field


def _image(field: np.ndarray, dtype: Any) -> np.ndarray:
    """A flow field [h, w, (u, v)] as [strain, v, u]: min-max bytes for uint8, as it is for float32."""
    du, dv = np.gradient(field[..., 0]), np.gradient(field[..., 1])
    strain = np.sqrt(du[1] ** 2 + dv[0] ** 2 + (du[0] + dv[1]) ** 2 / 2)
    image = np.stack([strain, field[..., 1], field[..., 0]], axis=-1)
    if dtype == np.float32:
        return image.astype(np.float32)
    low, high = image.min(axis=(0, 1)), image.max(axis=(0, 1))
    return np.round(255 * (image - low) / (high - low)).astype(np.uint8)


def toy_arrays(
    persons: int = 10,
    clips: int = 6,
    seed: int = 0,
    size: int = 28,
    dtype: Any = np.uint8,
    noise: float = 1.0,
) -> dict[str, np.ndarray]:
    """Arrays of an archive: persons over two data sets ("alpha", "beta"), all three classes in every person.

    A clip is its class's pulls (shifted and scaled by person and clip) on a person's own smooth field and
    fresh smooth noise. Subject names repeat between the data sets: a key without the data set must fail.
    """
    rng = np.random.default_rng([seed, 20])
    rows: dict[str, list[Any]] = {key: [] for key in ("x", "y", "dataset", "subject", "clip")}
    for person in range(persons):
        own = _bumps(size, rng.uniform((0, 0, -0.5, -0.5), (1, 1, 0.5, 0.5), (4, 4)), 0.2)
        shift = rng.normal(0, 0.03, 2)
        for clip in range(clips):
            label = (0, 1, 2, 0, 1, 0, 2)[(clip + person) % 7] if clip > 2 else clip
            pulls = np.array(PULLS[label]) + np.array([*shift, 0, 0])
            pulls[:, 2:] *= rng.uniform(0.4, 1.2)
            fresh = _bumps(
                size, rng.uniform((0, 0, -0.8, -0.8), (1, 1, 0.8, 0.8), (5, 4)) * (1, 1, noise, noise), 0.15
            )
            field = _bumps(size, pulls, 0.09) + own + fresh
            rows["x"].append(_image(field, dtype))
            rows["y"].append(label)
            rows["dataset"].append("alpha" if person < (persons + 1) // 2 else "beta")
            rows["subject"].append(f"s{person % ((persons + 1) // 2) + 1}")
            rows["clip"].append(f"c{clip + 1}")
    return {key: np.array(value) for key, value in rows.items()}


@pytest.fixture(scope="session")
def toy_data() -> Callable[..., dict[str, np.ndarray]]:
    """`toy_data(persons=, clips=, seed=, size=, dtype=, noise=)`: the arrays, to be spoilt by a test."""
    return toy_arrays


@pytest.fixture(scope="session")
def toy_builder() -> Callable[..., Archive]:
    """`toy_builder(persons=, clips=, ...)`: an Archive of that size."""
    return lambda **options: make_archive(**toy_arrays(**options))


@pytest.fixture(scope="session")
def toy_archive() -> Archive:
    """10 persons in two data sets, 60 clips of 28x28x3 uint8, three classes."""
    return make_archive(**toy_arrays())


@pytest.fixture(scope="session")
def toy_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy archive as an .npz file; tests must not write to it."""
    return save_archive(tmp_path_factory.mktemp("toy") / "toy.npz", **toy_arrays())


@pytest.fixture(scope="session")
def real_file() -> Path:
    """The two-part archive of real clips, where MERVEIL_DATA_DIR says; skips with that word otherwise."""
    folder = os.environ.get("MERVEIL_DATA_DIR")
    if not folder:
        pytest.skip("MERVEIL_DATA_DIR is not set")
    file = Path(folder) / "flow_smic_casme2.npz"
    if not file.is_file():
        pytest.skip(f"MERVEIL_DATA_DIR holds no {file.name}")
    return file
