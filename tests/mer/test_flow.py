"""Flow: direction and sign of u and v, pinned parameters, refusals, and the missing or shadowed wheel."""

from types import SimpleNamespace

import numpy as np
import pytest

from merveil.mer.errors import InputError
from merveil.mer.features import flow as flows
from merveil.mer.features import light, opencv


def speckle(side: int = 96, seed: int = 0) -> np.ndarray:
    cv2 = opencv.opencv()
    noise = np.random.default_rng(seed).standard_normal((side, side))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.0)
    return np.clip(128 + 60 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def moved(image: np.ndarray, right: float, down: float) -> np.ndarray:
    cv2 = opencv.opencv()
    matrix = np.float32([[1, 0, right], [0, 1, down]])
    return cv2.warpAffine(
        image, matrix, image.shape[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )


@pytest.mark.parametrize("method", ["tvl1", "dis"])
def test_u_is_to_the_right_and_v_is_down(method: str) -> None:
    image = speckle()
    inside = np.s_[12:-12, 12:-12]
    right = flows.flow(image, moved(image, 0.7, 0), method)[inside]
    down = flows.flow(image, moved(image, 0, 1.3), method)[inside]
    assert np.abs(right - [0.7, 0]).mean() < 0.06
    assert np.abs(down - [0, 1.3]).mean() < 0.06


def test_every_parameter_of_the_solvers_is_pinned_and_printed() -> None:
    """A parameter of OpenCV that we neither set nor print could change under us with a release."""
    for method in flows.METHODS:
        solver = flows.make_solver(method)
        settable = {name[3:] for name in dir(solver) if name.startswith("set")} - {"UseInitialFlow"}
        assert settable == set(flows.parameters(method))
        for name, value in flows.parameters(method).items():
            assert getattr(solver, f"get{name}")() == pytest.approx(value)
            assert f"{name}={value:g}" in flows.describe(method)


def test_wrong_frames_and_methods_are_refused() -> None:
    image = speckle(32)
    with pytest.raises(InputError, match="differ in size"):
        flows.flow(image, image[:-1], "dis")
    with pytest.raises(InputError, match="must be uint8"):
        flows.flow(image.astype(np.float32), image, "dis")
    with pytest.raises(InputError, match="too small"):
        flows.flow(image[:8, :8], image[:8, :8], "dis")
    with pytest.raises(
        InputError, match="unknown flow method 'farneback': choose one of tvl1, tvl1-quick, dis"
    ):
        flows.flow(image, image, "farneback")


@pytest.mark.parametrize(
    "wheels, words",
    [
        (["opencv-contrib-python-headless 4.14.0", "opencv-python 4.14.0"], "hides it .opencv-python"),
        (["opencv-python-headless 4.14.0"], "opencv-python-headless 4.14.0 is installed, which lacks it"),
        (["opencv-contrib-python-headless 4.14.0"], "install is damaged"),
    ],
)
def test_a_missing_or_shadowed_optflow_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, wheels: list[str], words: str
) -> None:
    monkeypatch.setattr(opencv, "opencv", lambda: SimpleNamespace())
    monkeypatch.setattr(opencv, "installed_wheels", lambda: wheels)
    with pytest.raises(ImportError, match=words) as error:
        opencv.with_optflow()
    assert "pip install" in str(error.value) and "'dis'" in str(error.value)


def test_the_installed_wheel_is_found() -> None:
    assert any(w.startswith(opencv.WHEEL) for w in opencv.installed_wheels())


def test_a_build_without_cascades_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opencv, "opencv", lambda: SimpleNamespace(__version__="5.0.0"))
    with pytest.raises(ImportError, match=r"OpenCV \(5.0.0\) ships no x.xml"):
        opencv.cascade_path("x.xml")


def test_flat_light_removes_a_lamp_and_keeps_texture() -> None:
    image = speckle()
    brighter = np.clip(image * 0.8 + 40, 0, 255).astype(np.uint8)
    a, b = light.flatten(image).astype(float), light.flatten(brighter).astype(float)
    assert abs(a.mean() - b.mean()) < 1 and np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.99
    assert light.flatten(image, "none") is image
    with pytest.raises(InputError, match="unknown lighting mode"):
        light.flatten(image, "dark")
