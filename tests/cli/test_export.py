"""`merveil export`: the file alone gives the run's predictions; every network has a graph; refusals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from merveil.cli import USAGE, main
from merveil.fl.model import load_model
from merveil.mer.data.archive import load_archive
from merveil.mer.models.registry import MODELS
from merveil.mer.models.stacked import build

NETWORKS = [name for name, info in MODELS.items() if info.kind == "network"]
SMALL = {"off-apexnet": {"head": "gap"}, "dual-inception": {"head": "gap"}}


@pytest.fixture
def trained(toy_file: Path, tmp_path: Path) -> Any:
    """`trained(model)` is the folder of a short run on the toy archive."""

    def make(model: str) -> Path:
        out = tmp_path / model
        words = ["train", "--data", str(toy_file), "--model", model, "--out", str(out), "-q"]
        assert main([*words, *([] if model == "exact-ridge" else ["--rounds", "2"])]) == 0
        return out

    return make


def test_an_onnx_file_predicts_as_its_run(
    trained: Any, toy_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], schema: Any
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    run, out = trained("flow-mlp"), tmp_path / "m.onnx"
    capsys.readouterr()
    assert main(["export", "--run", str(run), "--format", "onnx", "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert schema.check(found, schema.load("export")) == []
    session = runtime.InferenceSession(out.read_bytes(), providers=["CPUExecutionProvider"])
    x = load_archive(toy_file).x
    p = session.run(None, {"images": x.astype(np.float32)})[0]
    assert np.abs(p - load_model(run).predict(x)).max() < 1e-5
    kept = session.get_modelmeta().custom_metadata_map
    assert kept["merveil.model"] == "flow-mlp" and json.loads(kept["merveil.classes"]) == found["classes"]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_has_a_graph(name: str) -> None:
    pytest.importorskip("onnxruntime")
    from merveil.cli.onnx_graph import onnx_bytes

    net = build(name, 3, 28, 28, 3, **SMALL.get(name, {}))
    params = net.init(1) + 0.05 * np.random.default_rng(0).random(net.size, np.float32)
    data, apart = onnx_bytes(net, params, {"a": "b"})
    assert len(data) > 4 * net.trainable and apart < 1e-4


def test_a_graph_that_differs_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    from merveil.cli import onnx_graph as export
    from merveil.mer.errors import InputError

    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    net = build("flow-mlp", 3, 28, 28, 3)
    with pytest.raises(InputError, match="differs from torch"):
        export.onnx_bytes(net, net.init(0), {})


@pytest.mark.parametrize("model", ["flow-mlp", "exact-ridge"])
def test_safetensors_hold_the_run_s_tensors(trained: Any, tmp_path: Path, model: str) -> None:
    from safetensors.numpy import load_file

    run, out = trained(model), tmp_path / "m.safetensors"
    assert main(["export", "--run", str(run), "--format", "safetensors", "--out", str(out)]) == 0
    mine, theirs = load_file(out), load_file(run / "model.safetensors")
    assert set(mine) == set(theirs) and all(np.array_equal(mine[name], theirs[name]) for name in mine)
    assert main(["export", "--run", str(run), "--format", "safetensors", "--out", str(out)]) == USAGE


def test_what_cannot_be_exported_is_said(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, out = trained("exact-ridge"), str(tmp_path / "m.onnx")
    assert main(["export", "--run", str(run), "--format", "onnx", "--out", out]) == USAGE
    assert "safetensors only" in capsys.readouterr().err
    assert main(["export", "--run", str(tmp_path / "none"), "--format", "onnx", "--out", out]) == USAGE

    def lacking(name: str, extra: str) -> Any:
        raise ImportError(f'{name} is missing: pip install "merveil[{extra}]"')

    monkeypatch.setattr("merveil.cli.onnx_graph.need", lacking)
    run = trained("ststnet")
    assert main(["export", "--run", str(run), "--format", "onnx", "--out", out]) == 1
    assert 'pip install "merveil[export]"' in capsys.readouterr().err and not Path(out).exists()
