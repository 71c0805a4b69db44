"""The one door to OpenCV: loaded on first use, with an error that says which wheel is missing or in the way.

Assumes the wheel `opencv-contrib-python-headless` 4.x: plain `opencv-python` has no TV-L1, version 5 ships
no Haar cascades, and a second OpenCV wheel installed over the first hides `cv2.optflow`.
"""

from importlib.metadata import distributions
from pathlib import Path
from types import ModuleType

from merveil.mer.extras import need

WHEEL = "opencv-contrib-python-headless"


def opencv() -> ModuleType:
    """cv2, or ImportError naming the extra that brings it."""
    return need("cv2", "mer")


def single_threaded() -> ModuleType:
    """cv2 with its own threads off: callers that run one process a core must not also share cores."""
    cv2 = opencv()
    cv2.setNumThreads(1)
    return cv2


def installed_wheels() -> list[str]:
    """Names and versions of all installed OpenCV distributions, sorted."""
    found = ((d.metadata["Name"] or "", d.version) for d in distributions())
    return sorted({f"{name} {version}" for name, version in found if name.lower().startswith("opencv")})


def with_optflow() -> ModuleType:
    """cv2 with its contrib module `optflow`, or ImportError that lists the wheels and the cure."""
    cv2 = opencv()
    if hasattr(getattr(cv2, "optflow", None), "DualTVL1OpticalFlow_create"):
        return cv2
    wheels = installed_wheels()
    others = [w for w in wheels if not w.startswith(f"{WHEEL} ")]
    if len(wheels) > len(others):
        why = f"another OpenCV wheel hides it ({', '.join(others)})" if others else "its install is damaged"
        cure = f"uninstall every opencv wheel, then pip install --force-reinstall {WHEEL}"
    else:
        why = f"{', '.join(others) or 'no known wheel'} is installed, which lacks it"
        cure = (
            f"pip uninstall {others[0].split()[0] if others else 'opencv-python'}, then pip install {WHEEL}"
        )
    raise ImportError(f"TV-L1 flow needs cv2.optflow, and {why}: {cure}; or choose the flow method 'dis'")


def cascade_path(name: str) -> Path:
    """Path of one Haar cascade file shipped with OpenCV; ImportError when this build ships none."""
    cv2 = opencv()
    folder = getattr(getattr(cv2, "data", None), "haarcascades", None)
    path = Path(folder or ".") / name
    if folder is None or not path.is_file():
        raise ImportError(
            f"this OpenCV ({getattr(cv2, '__version__', 'unknown')}) ships no {name}: pip install '{WHEEL}<5'"
        )
    return path
