"""Strain against closed forms, rigid motion, and the scales of the feature image."""

import numpy as np
import pytest

from merveil.mer.errors import InputError
from merveil.mer.features import normalise
from merveil.mer.features.rigid import MODES, remove_rigid
from merveil.mer.features.strain import optical_strain

Y, X = np.mgrid[0:60, 0:80].astype(np.float64)
X, Y = X - 39.5, Y - 29.5


def field(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.stack([u, v], axis=-1).astype(np.float32)


@pytest.mark.parametrize("a, b", [(0.02, 0.0), (0.0, -0.03), (0.02, -0.03), (0.01, 0.01)])
def test_stretch_has_strain_root_of_a2_plus_b2(a: float, b: float) -> None:
    assert np.allclose(optical_strain(field(a * X, b * Y)), np.hypot(a, b), atol=1e-6)


def test_shear_counts_half_of_its_square() -> None:
    assert np.allclose(optical_strain(field(0.04 * Y, 0 * X)), 0.04 / np.sqrt(2), atol=1e-6)


def test_shift_and_rotation_have_no_strain() -> None:
    assert np.allclose(optical_strain(field(3 + 0 * X, -2 + 0 * Y)), 0, atol=1e-6)
    turn = field(-0.05 * Y, 0.05 * X)
    assert np.allclose(optical_strain(turn), 0, atol=1e-6)
    u_y, v_x = np.gradient(turn[..., 0])[0], np.gradient(turn[..., 1])[1]
    assert np.sqrt(0.5 * (u_y**2 + v_x**2)).min() > 0.04  # the published variant fails here, so this can fail


def test_smooth_field_agrees_with_its_analytic_strain() -> None:
    s = 12.0
    bump = np.exp(-(X**2 + Y**2) / (2 * s**2))
    expected = np.sqrt((X / s**2 * bump) ** 2 + 0.5 * (Y / s**2 * bump) ** 2)
    found = optical_strain(field(bump, 0 * X))[1:-1, 1:-1]
    assert np.abs(found - expected[1:-1, 1:-1]).max() < 0.001  # of a peak of 0.05


@pytest.mark.parametrize("shape", [(5, 5), (5, 5, 3), (1, 5, 2)])
def test_what_is_no_field_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a flow field is"):
        optical_strain(np.zeros(shape))


@pytest.mark.parametrize("mode", ["nose", "median", "similarity"])
def test_a_shift_of_the_head_is_removed_and_the_mouth_is_kept(mode: str) -> None:
    mouth = 1.5 * np.exp(-(X**2 + (Y - 20) ** 2) / (2 * 5.0**2))
    still = remove_rigid(field(2 + 0 * X, mouth - 1), mode)
    assert np.abs(still[..., 0]).max() < 0.05
    assert np.abs(still[..., 1] - mouth).max() < 0.12


def test_only_the_similarity_fit_removes_turn_and_growth() -> None:
    turn = field(1 - 0.02 * Y + 0.01 * X, 0.02 * X + 0.01 * Y)
    left = {mode: float(np.abs(remove_rigid(turn, mode)).max()) for mode in MODES}
    assert left["similarity"] < 1e-3 and left["nose"] > 0.3 and left["none"] > left["nose"]
    with pytest.raises(InputError, match="unknown rigid-motion mode 'chin'"):
        remove_rigid(turn, "chin")


def test_stack_orders_strain_v_u_in_percent_of_the_face() -> None:
    flow = field(2 + 0 * X, -1 + 0 * Y)
    image = normalise.stack(flow, np.full(X.shape, 0.03, np.float32), 200.0)
    assert np.allclose(image[0, 0], [3.0, -0.5, 1.0])
    with pytest.raises(ValueError, match="must be positive"):
        normalise.stack(flow, flow[..., 0], 0.0)


def test_shrink_takes_area_means() -> None:
    values = np.random.default_rng(0).standard_normal((140, 140, 3)).astype(np.float32)
    means = values.reshape(28, 5, 28, 5, 3).mean(axis=(1, 3))
    assert np.allclose(normalise.shrink(values, 28), means, atol=1e-6)
    with pytest.raises(ValueError, match="cannot be shrunk"):
        normalise.shrink(values[:20], 28)


def test_ststnet_compat_is_min_max_per_channel() -> None:
    image = np.random.default_rng(1).standard_normal((28, 28, 3)).astype(np.float32) * [1, 5, 9] + [0, 3, -9]
    image[..., 0] = 7
    bytes_ = normalise.min_max(image.astype(np.float32))
    assert bytes_.dtype == np.uint8 and (bytes_[..., 0] == 0).all()
    assert bytes_[..., 1:].min(axis=(0, 1)).tolist() == [0, 0]
    assert bytes_[..., 1:].max(axis=(0, 1)).tolist() == [255, 255]
    with pytest.raises(InputError, match="unknown normalisation 'z'"):
        normalise.check_mode("z")
