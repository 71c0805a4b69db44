"""`merveil predict`: the label of one video by a trained run, with probabilities and a picture."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merveil.cli import OK, print_json, say
from merveil.mer.errors import InputError

if TYPE_CHECKING:
    from merveil.mer.predict import Prediction

HELP = "label of one video by a trained run, with probabilities and a picture"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", required=True, metavar="runs/NAME", help="a finished run of merveil train")
    parser.add_argument("clip", metavar="CLIP", help="a video (.mp4, .avi, .mkv) or a folder of frames")
    parser.add_argument("--out", metavar="PNG", help="write a picture: frames, flow, strain, probabilities")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Load the model, extract as its training data were extracted, print, and draw."""
    from merveil.fl.model import load_model
    from merveil.mer.predict import predict_clip
    from merveil.mer.preview import prediction_sheet, write_png

    out = _picture(args.out)
    model = load_model(args.run)
    found = predict_clip(args.clip, model.meta, model.predict)
    if out is not None:
        title = f"{Path(args.clip).name}: {found.label}"
        write_png(out, prediction_sheet(found.made, title, found.classes, found.probabilities.tolist()))
    if args.json:
        print_json(_summary(args, found, model.name, model.sha256))
        return OK
    print(f"{found.label}")
    for name, value in sorted(zip(found.classes, found.probabilities), key=lambda pair: -pair[1]):
        print(f"  {name:<10} {100 * float(value):5.1f} %")
    spotted = found.made.spotted
    say(f"onset frame {spotted.onset}, apex frame {spotted.apex} ({spotted.source}) of {found.frames}")
    return OK


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
    spotted, box = found.made.spotted, found.made.box
    return {
        "clip": str(args.clip),
        "run": str(args.run),
        "model": model,
        "model_sha256": digest,
        "label": found.label,
        "probabilities": {name: float(p) for name, p in zip(found.classes, found.probabilities)},
        "frames": found.frames,
        "onset": spotted.onset,
        "apex": spotted.apex,
        "apex_source": spotted.source,
        "face": {"x": box.x, "y": box.y, "side": box.side},
        "settings": asdict(found.settings),
        "picture": args.out,
    }
