"""`merveil export`: a finished run's model as one file for other software, checked against torch."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merveil.cli import OK, print_json, say
from merveil.mer.errors import InputError

if TYPE_CHECKING:
    from merveil.fl.exact_model import LoadedExact
    from merveil.fl.model import LoadedModel

HELP = "a trained model as ONNX or safetensors, checked against torch"
FORMATS = ("onnx", "safetensors")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", required=True, type=Path, metavar="runs/NAME", help="a finished run")
    parser.add_argument("--format", required=True, choices=FORMATS, help="of the file")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="default: model.onnx or NAME.safetensors here"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    from merveil.fl.files import sha256, write_bytes
    from merveil.fl.model import load_model

    out = args.out or Path(f"{args.run.name}.{args.format}")
    if out.is_dir() or (out.exists() and not args.force):
        raise InputError(f"--out {out} exists: name another file, or --force to replace it")
    model = load_model(args.run)
    about = _about(model)
    data, apart = (_onnx if args.format == "onnx" else _safetensors)(model, about)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out, data)
    found = {
        "file": str(out),
        "format": args.format,
        "model": model.name,
        "model_sha256": model.sha256,
        "sha256": sha256(data),
        "bytes": len(data),
        "largest_difference": apart,
        "classes": list(model.classes),
        "input": list(model.shape),
    }
    if args.json:
        print_json(found)
    else:
        say(f"{out}: {model.name}, {len(data) / 1000:.1f} kB, differs from torch by at most {apart:.2g}")
    return OK


def _about(model: "LoadedModel | LoadedExact") -> dict[str, str]:
    """What a reader of the file alone must know: how clips are made, and what the outputs are."""
    return {
        "merveil.model": model.name,
        "merveil.options": json.dumps(dict(model.options), sort_keys=True),
        "merveil.classes": json.dumps(list(model.classes)),
        "merveil.input": json.dumps(list(model.shape)),
        "merveil.meta": json.dumps(model.meta.to_json(), sort_keys=True),
        "merveil.answering": json.dumps(model.answering),
        "merveil.model_sha256": model.sha256,
    }


def _onnx(model: Any, about: dict[str, str]) -> tuple[bytes, float]:
    from merveil.cli.onnx_graph import onnx_bytes

    if not hasattr(model, "net"):
        raise InputError(f"{model.name} is exported as safetensors only: it is no network")
    return onnx_bytes(model.net, model.params, about)


def _safetensors(model: Any, about: dict[str, str]) -> tuple[bytes, float]:
    """The run's tensors with their metadata; read back and compared, so the difference is 0."""
    import numpy as np

    from merveil.mer.extras import need

    if hasattr(model, "net"):
        from merveil.fl.update import Layout

        tensors = Layout.of(model.net.layout).unflatten(model.params)
    else:
        from merveil.fl.exact_model import tensors as exact_tensors

        tensors = exact_tensors(model.exact)
        warps = {site: [w.rows, w.columns, w.shift] for site, w in sorted(model.exact.warps.items())}
        about["merveil.warps"] = json.dumps(warps)
    files = need("safetensors.numpy", "mer")
    data = bytes(files.save(tensors, metadata=about))
    again = files.load(data)
    apart = max(float(np.abs(again[name] - value).max()) for name, value in tensors.items())
    if apart > 0 or set(again) != set(tensors):
        raise InputError("the safetensors file does not read back as it was written: it was not kept")
    return data, apart
