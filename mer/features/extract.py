"""One clip of frames -> one feature image [28, 28, 3] in the order strain, v, u, with a record of how.

The whole chain: face on the onset frame, one level square for all frames, onset and apex, flow between the
two, head motion taken out, strain, shrunk by area means, scaled. Nothing here looks at labels or at other
clips.
"""

import re
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from merveil.mer.errors import InputError
from merveil.mer.features import align, light, magnify, normalise, rigid
from merveil.mer.features import apex as apexes
from merveil.mer.features import face as faces
from merveil.mer.features import flow as flows
from merveil.mer.features.opencv import opencv
from merveil.mer.features.strain import optical_strain

VERSION = 2  # part of the cache key: raise it when the same frames and settings give other features
CHANNELS = ("strain", "v", "u")
FACES = ("detect", "full")
UNITS = ("face", "eyes")
MIN_CROP, MAX_CROP = 128, 512
MOST_JITTER = 16


@dataclass(frozen=True)
class Settings:
    """Everything that features depend on besides the frames; the defaults are merveil's own.

    flow: tvl1 | tvl1-quick | dis. light: flat | none (slow lighting taken out first or not).
    normalise: percent | ststnet-compat. rigid: nose | median | similarity | none.
    face: detect | full (frames are face crops already, and are not turned).
    align: eyes | mesh | none, how a turned face is levelled. magnify: 1 (none) to 20.
    unit: face | eyes, the length that percent refers to. apex: auto | annotated | middle | spotted.
    crop: side of the face square in which flow is computed. size: side of the feature image.
    apex_jitter: frames either side of the apex whose features are made as well, for training.
    """

    flow: str = "tvl1"
    light: str = "flat"
    normalise: str = "percent"
    rigid: str = "nose"
    face: str = "detect"
    unit: str = "face"
    apex: str = "auto"
    align: str = "eyes"
    magnify: float = 1.0
    crop: int = 140
    size: int = 28
    apex_jitter: int = 0

    def check(self) -> None:
        """InputError for an unknown word or a size out of range."""
        flows.parameters(self.flow)
        normalise.check_mode(self.normalise)
        rigid.check_mode(self.rigid)
        light.check_mode(self.light)
        align.check_mode(self.align)
        magnify.check_factor(self.magnify)
        for name, value, known in (
            ("face", self.face, FACES),
            ("unit", self.unit, UNITS),
            ("apex", self.apex, apexes.CHOICES),
        ):
            if value not in known:
                raise InputError(f"unknown {name} setting {value!r}: choose one of {', '.join(known)}")
        if not MIN_CROP <= self.crop <= MAX_CROP:
            raise InputError(f"the face square must be {MIN_CROP} to {MAX_CROP} px a side, not {self.crop}")
        if not 8 <= self.size <= self.crop // 2:
            raise InputError(f"the feature image must be 8 to {self.crop // 2} px a side, not {self.size}")
        if not 0 <= self.apex_jitter <= MOST_JITTER:
            raise InputError(f"apex_jitter must be 0 to {MOST_JITTER} frames, not {self.apex_jitter}")

    def describe_flow(self) -> str:
        """For an archive's meta: flow method with parameters, and the picture it was computed on."""
        rest = f"crop={self.crop} light={self.light} face={self.face} rigid={self.rigid}"
        rest += f" align={self.align} magnify={self.magnify:g}"
        return f"{flows.describe(self.flow)} {rest}"

    def describe_normalisation(self) -> str:
        return f"{self.normalise} unit={self.unit} size={self.size} extractor=merveil/{VERSION}"


def settings_from_meta(flow: str, normalisation: str, apex: str) -> Settings:
    """The settings an archive of merveil's own extractor was made with, read back from its meta.

    InputError when the features come from elsewhere or from another version: a clip processed in any other
    way would not mean the same to the model.
    """
    found = re.fullmatch(
        r"([\w-]+)\(.*\) crop=(\d+) light=(\w+) face=(\w+) rigid=(\w+)(?: align=(\w+) magnify=([\d.]+))?",
        flow,
    )
    scaled = re.fullmatch(r"([\w-]+) unit=(\w+) size=(\d+) extractor=merveil/(\d+)", normalisation)
    if found is None or scaled is None:
        raise InputError(
            "the model was trained on features that merveil's extractor did not make "
            f"(flow {flow!r}, normalisation {normalisation!r}), so a video cannot be put into their form"
        )
    settings = Settings(
        flow=found[1],
        crop=int(found[2]),
        light=found[3],
        face=found[4],
        rigid=found[5],
        align=found[6] or "none",  # versions before 2 did not turn faces, and are refused below
        magnify=float(found[7] or 1),
        normalise=scaled[1],
        unit=scaled[2],
        size=int(scaled[3]),
        apex="middle" if apex == "middle" else "auto",
    )
    settings.check()
    if settings.describe_flow() != flow or int(scaled[4]) != VERSION:
        raise InputError(
            f"the model's features were made by another version of the extractor ({flow}; {normalisation}), "
            f"this one is {settings.describe_flow()}; {settings.describe_normalisation()}: train it anew"
        )
    return settings


@dataclass(frozen=True, eq=False)
class Extraction:
    """x: feature image. onset_face, apex_face: the two crops. flow [c, c, 2] (px, head motion out),
    strain [c, c]. box: the face in the frames. aligned: eyes | mesh | none | upright (eyes not found) | full.
    spotted: onset, apex, their source and signal. near: feature images [2 * apex_jitter, ...] of the frames
    about the apex, first to last, the apex left out."""

    x: NDArray[np.float32] | NDArray[np.uint8]
    onset_face: NDArray[np.uint8]
    apex_face: NDArray[np.uint8]
    flow: NDArray[np.float32]
    strain: NDArray[np.float32]
    box: faces.Box
    aligned: str
    spotted: apexes.Spotted
    near: NDArray[np.float32] | NDArray[np.uint8]


def to_gray(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[t, h, w] as it is, or [t, h, w, 3] in OpenCV's BGR order -> grey uint8 [t, h, w]."""
    if frames.dtype != np.uint8 or frames.ndim not in (3, 4) or (frames.ndim == 4 and frames.shape[3] != 3):
        raise InputError(
            f"frames must be uint8 [t, h, w] or [t, h, w, 3], not {frames.dtype} {list(frames.shape)}"
        )
    if frames.ndim == 3:
        return frames
    cv2 = opencv()
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in frames])


def extract(
    frames: NDArray[np.uint8],
    onset: int | None = None,
    apex: int | None = None,
    settings: Settings | None = None,
    least: float = apexes.QUIET,
) -> Extraction:
    """Features of one clip, with all that a picture of it needs.

    frames: uint8 [t, h, w] or [t, h, w, 3] (BGR). onset, apex: annotated indices, where known.
    least: smallest spotted movement (see merveil.mer.features.apex), percent of the face width.
    InputError: no face, no movement, indices out of range, too few or too small frames.
    """
    settings = settings or Settings()
    settings.check()
    gray = to_gray(frames)
    if len(gray) < 2:
        raise InputError(f"a clip needs at least 2 frames, and this one has {len(gray)}")
    if onset is not None and not 0 <= onset < len(gray):
        raise InputError(f"the onset is frame {onset}, but the clip has frames 0 to {len(gray) - 1}")
    box, aligned = find_face(gray[onset or 0], settings)
    if settings.apex == "spotted" or (settings.apex == "auto" and apex is None):
        squares = faces.crop(gray, box, settings.crop)
        spotted = apexes.choose(squares, settings.apex, onset, apex, least)
    else:
        spotted = apexes.choose(gray, settings.apex, onset, apex)
    made = extract_pair(gray[[spotted.onset, spotted.apex]], box, aligned, spotted, settings)
    frames_near = near_apex(spotted.onset, spotted.apex, len(gray), settings.apex_jitter)
    if not frames_near:
        return made
    by_frame = {
        at: extract_pair(gray[[spotted.onset, at]], box, aligned, spotted, settings).x
        for at in sorted({*frames_near} - {spotted.apex})
    }
    return replace(made, near=np.stack([by_frame.get(at, made.x) for at in frames_near]))


def near_apex(onset: int, apex: int, frames: int, jitter: int) -> list[int]:
    """The 2 * jitter frames about the apex, first to last, the apex left out.

    A frame that the clip does not have, or that is not after the onset, gives way to the nearest that is.
    """
    steps = [*range(-jitter, 0), *range(1, jitter + 1)]
    return [min(max(apex + step, onset + 1), frames - 1) for step in steps]


def extract_pair(
    frames: NDArray[np.uint8], box: faces.Box, aligned: str, spotted: apexes.Spotted, settings: Settings
) -> Extraction:
    """Features of two grey frames, onset and apex, uint8 [2, h, w], with the face in `box`.

    aligned, spotted: how box and frames were found, for the record.
    """
    pair = faces.crop(frames, box, settings.crop)
    moved = magnify.magnify(pair[0], pair[1], settings.magnify)
    first, second = (light.flatten(face, settings.light) for face in (pair[0], moved))
    field = rigid.remove_rigid(flows.flow(first, second, settings.flow), settings.rigid)
    strain = optical_strain(field)
    x = feature_image(field, strain, pair[0], settings)
    return Extraction(x, pair[0], pair[1], field, strain, box, aligned, spotted, x[:0].reshape(0, *x.shape))


def find_face(gray: NDArray[np.uint8], settings: Settings) -> tuple[faces.Box, str]:
    """The square of one grey frame, and how it was levelled (see align.locate); `full` for crops."""
    if settings.face == "full":
        return faces.whole(gray), "full"
    return align.locate(gray, settings.align)


def feature_image(
    field: NDArray[np.float32], strain: NDArray[np.float32], onset_face: NDArray[np.uint8], settings: Settings
) -> NDArray[np.float32] | NDArray[np.uint8]:
    """[size, size, 3] in strain, v, u: float32 percent, or uint8 for ststnet-compat."""
    length = float(settings.crop) if settings.unit == "face" else faces.eye_distance(onset_face)
    image = normalise.shrink(normalise.stack(field, strain, length), settings.size)
    return normalise.min_max(image) if settings.normalise == "ststnet-compat" else image


def features(
    frames: NDArray[np.uint8],
    onset: int | None = None,
    apex: int | None = None,
    settings: Settings | None = None,
) -> NDArray[np.float32] | NDArray[np.uint8]:
    """The feature image alone: [28, 28, 3] in strain, v, u (float32 percent by default)."""
    return extract(frames, onset, apex, settings).x


def settings_key(settings: Settings) -> dict[str, str | int]:
    """All settings and versions, for a cache key: changes whenever the features could."""
    record: dict[str, str | int] = {f.name: asdict(settings)[f.name] for f in fields(settings)}
    if not settings.apex_jitter:
        del record["apex_jitter"]  # as the keys were before there was any
    record["flow_parameters"] = settings.describe_flow()
    record["extractor"] = VERSION
    return record
