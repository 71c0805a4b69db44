"""`merveil predict`: what moves in a video, and what a trained run says of it, with a picture."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merveil.cli import OK, print_json, say
from merveil.mer.errors import InputError

if TYPE_CHECKING:
    from merveil.mer.data.video import Film
    from merveil.mer.features.face import Box
    from merveil.mer.predict import Answer, Prediction, Predictor

HELP = "label of one video by a trained run, with probabilities and a picture"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", required=True, metavar="runs/NAME", help="a finished run of merveil train")
    parser.add_argument("clip", metavar="CLIP", help="a video (.mp4, .avi, .mkv) or a folder of frames")
    parser.add_argument("--out", metavar="PNG", help="write a picture: frames, flow, strain, timeline")
    parser.add_argument(
        "--window", type=int, metavar="N", help="frames looked at together (default: 1 second)"
    )
    parser.add_argument("--fps", type=float, help="frames a second, where the file does not say")
    parser.add_argument("--site", metavar="NAME", help="where the clip was filmed, of the sites that trained")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Load the model, find windows that move, extract as its training data were extracted, print and draw."""
    from merveil.fl.model import load_model
    from merveil.mer.calibration import Answering
    from merveil.mer.predict import predict_clip

    out = _picture(args.out)
    model = load_model(args.run)
    answering = None if model.answering is None else Answering.from_json(model.answering)
    found = predict_clip(
        args.clip,
        model.meta,
        _predictor(model, args.site),
        answering=answering,
        window=args.window,
        fps=args.fps,
    )
    if out is not None:
        _draw(out, args.clip, found)
    if args.json:
        print_json(_summary(args, found, model.name, model.sha256))
        return OK
    print(found.best.word)
    for name, value in sorted(zip(found.classes, found.best.probabilities), key=lambda pair: -pair[1]):
        print(f"  {name:<10} {100 * float(value):5.1f} %")
    _tell(found)
    return OK


def _predictor(model: Any, site: str | None) -> "Predictor":
    """The model as a function of images. InputError: a site that it does not know."""
    if site is None:
        return lambda x: model.predict(x)  # type: ignore[no-any-return]
    if site not in model.sites:
        known = ", ".join(model.sites) or "none: it treats all sites alike"
        raise InputError(f"--site {site}: the model knows {known}")
    return lambda x: model.predict(x, [site] * len(x))  # type: ignore[no-any-return]


def _tell(found: "Prediction") -> None:
    """What stands behind the answer, on stderr."""
    best, film = found.best, found.film
    spotted = found.made.spotted
    say(f"onset frame {spotted.onset}, apex frame {spotted.apex} ({spotted.source}) of {len(film.frames)}")
    if not best.sure and found.answering is not None:
        say(
            f"not sure: {100 * best.confidence:.0f} % for {best.label} is under the model's threshold of "
            f"{100 * found.answering.threshold:.0f} %"
        )
    if len(found.answers) > 1:
        say(f"{len(found.answers)} windows move; the answer is that of the strongest:")
        for answer in found.answers:
            rise = f"{answer.window.rise:.2f} % of face"
            say(f"  {_moment(answer.window.apex, film):>10}  {rise}  {answer.word} {answer.confidence:.2f}")
    blind = [w for w in found.windows if w.state == "no face"]
    if blind:
        first = _moment(blind[0].start, film)
        say(f"note: no face in {len(blind)} of {len(found.windows)} windows, first at {first}")
    if best.window.aligned == "upright":
        say("note: no eyes were found, so the face is cropped but not turned")


def _moment(frame: int, film: "Film") -> str:
    return f"frame {frame}" if film.fps is None else f"{frame / film.fps:.2f} s"


def _draw(out: Path, clip: str, found: "Prediction") -> None:
    import numpy as np

    from merveil.mer.preview import prediction_sheet, write_png
    from merveil.mer.timeline import timeline

    title = f"{Path(clip).name}: {found.best.word}"
    chances = found.best.probabilities.tolist()
    sheet = prediction_sheet(found.made, title, found.classes, chances, found.best.window.start)
    write_png(out, np.vstack([sheet, timeline(found, sheet.shape[1])]))


def _picture(path: str | None) -> Path | None:
    if path is None:
        return None
    out = Path(path)
    if out.suffix.lower() != ".png":
        raise InputError(f"--out {out} must end in .png")
    if out.is_dir():
        raise InputError(f"--out {out} is a folder; name a file in it")
    out.parent.mkdir(parents=True, exist_ok=True)
    return out


def _summary(args: argparse.Namespace, found: "Prediction", model: str, digest: str) -> dict[str, Any]:
    spotted, best = found.made.spotted, found.best
    return {
        "clip": str(args.clip),
        "run": str(args.run),
        "model": model,
        "model_sha256": digest,
        "label": best.label,
        "answer": best.word,
        "confidence": best.confidence,
        "probabilities": _chances(found, best),
        "answering": found.answering.to_json() if found.answering else None,
        "frames": len(found.film.frames),
        "fps": found.film.fps,
        "onset": spotted.onset,
        "apex": spotted.apex,
        "apex_source": spotted.source,
        "face": _face(found.made.box, found.film.scale),
        "aligned": found.made.aligned,
        "windows": [_window(found, answer) for answer in found.answers],
        "looked_at": [
            {"start": w.start, "stop": w.stop, "state": w.state, "rise": round(w.rise, 4)}
            for w in found.windows
        ],
        "settings": asdict(found.settings),
        "picture": args.out,
    }


def _chances(found: "Prediction", answer: "Answer") -> dict[str, float]:
    return {name: float(p) for name, p in zip(found.classes, answer.probabilities)}


def _face(box: "Box", scale: float) -> dict[str, float]:
    """The face's square in pixels of the file."""
    x, y, side = (round(value / scale) for value in (box.x, box.y, box.side))
    return {"x": x, "y": y, "side": side, "angle": round(box.angle, 2)}


def _window(found: "Prediction", answer: "Answer") -> dict[str, Any]:
    window = answer.window
    assert window.box is not None  # a window that moves has a face
    return {
        "start": window.start,
        "stop": window.stop,
        "onset": window.onset,
        "apex": window.apex,
        "rise": round(window.rise, 4),
        "label": answer.label,
        "answer": answer.word,
        "confidence": answer.confidence,
        "probabilities": _chances(found, answer),
        "face": _face(window.box, found.film.scale),
    }
