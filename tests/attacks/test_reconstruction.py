"""Image metrics against closed forms and an independent implementation."""

import numpy as np
import pytest

from merveil.attacks import reconstruction as rec


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).random((6, 28, 28, 3))


def test_ncc_ignores_scale_and_offset_but_sees_sign(images: np.ndarray) -> None:
    assert np.allclose(rec.ncc(images * 5 - 2, images), 1.0)
    assert np.allclose(rec.ncc(-images, images), -1.0)
    assert np.allclose(rec.ncc(np.zeros_like(images), images), 0.0)


def test_psnr_of_a_known_error(images: np.ndarray) -> None:
    assert np.allclose(rec.psnr(images + 0.1, images, 1.0), 20.0)
    assert np.isinf(rec.psnr(images, images, 1.0)).all()


def test_ssim_equals_scikit_image(images: np.ndarray) -> None:
    other = np.clip(images + np.random.default_rng(1).normal(0, 0.1, images.shape), 0, 1)
    structural = pytest.importorskip("skimage.metrics").structural_similarity
    for i in range(2):
        for c in range(3):
            want = structural(other[i, ..., c], images[i, ..., c], data_range=1.0, win_size=7)
            assert rec.ssim(other, images, 1.0)[i, c] == pytest.approx(want, abs=1e-9)


def test_endpoint_error_is_one_for_no_motion_and_nan_without_truth(images: np.ndarray) -> None:
    assert np.allclose(rec.relative_endpoint_error(np.full_like(images, 0.3), images, (1, 2)), 1.0)
    assert np.allclose(rec.relative_endpoint_error(images + 4.0, images, (1, 2)), 0.0)
    assert np.isnan(rec.relative_endpoint_error(images, np.ones_like(images), (1, 2))).all()


def test_matching_undoes_a_shuffle(images: np.ndarray) -> None:
    order = np.random.default_rng(2).permutation(6)
    assert (order[rec.match(images[order], images)] == np.arange(6)).all()
    with pytest.raises(ValueError, match="cannot be matched"):
        rec.match(images[:2], images)


def test_ranks_and_flat_guesses_rank_last(images: np.ndarray) -> None:
    assert (rec.ranks(images, images, np.arange(6)) == 1).all()
    assert (rec.ranks(np.zeros_like(images), images, np.arange(6)) == 6).all()


def test_gain_is_over_the_best_null_of_all_images(images: np.ndarray) -> None:
    nulls = {"zero": np.zeros((1, 28, 28, 3)), "mean": images.mean(axis=0, keepdims=True)}
    gain, means = rec.null_gain(images, images, nulls)
    assert means["zero"] == 0.0 and means["mean"] > 0.3
    assert np.allclose(gain, 1.0 - rec.ncc(np.broadcast_to(nulls["mean"], images.shape), images).mean(-1))
