"""In every folder the files are what its script makes, every vector holds, and recorded rounds play again."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from merveil.protocols.api import server_session
from merveil.protocols.identity import Roster
from merveil.protocols.registry import names, params_from
from merveil.protocols.session import Phase

HERE = Path(__file__).parent


def load(script: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"merveil_vectors_{script.stem}", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPTS = sorted(HERE.rglob("generate*.py"))
MADE_BY = {script.parent: load(script) for script in SCRIPTS}  # one a folder
GENERATE = MADE_BY[HERE]
VECTORS = [
    pytest.param(folder, v, id=f"{path.relative_to(HERE)}: {v['name']}")
    for folder in MADE_BY
    for path in sorted(folder.glob("*.json"))
    for v in json.loads(path.read_text()).get("vectors", [])
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_the_files_are_rebuilt_byte_for_byte(script: Path) -> None:
    """Recorded rounds too, but for the answers of ckks, whose noise is made of floats."""
    made = MADE_BY[script.parent].files()
    assert sorted(made) == sorted(p.name for p in script.parent.glob("*.json"))
    for name, text in made.items():
        same = (script.parent / name).read_bytes() == text.encode()
        assert same, f"{name} differs: run {script.relative_to(HERE)}"


def test_every_folder_with_vectors_has_a_script() -> None:
    assert {p.parent for p in HERE.rglob("*.json")} == set(MADE_BY)


@pytest.mark.parametrize(("folder", "v"), VECTORS)
def test_each_vector_holds(folder: Path, v: dict[str, Any]) -> None:
    found = MADE_BY[folder].run(v["operation"], v["in"])
    assert found == {k: v[k] for k in ("out", "error", "code") if k in v}


@pytest.mark.parametrize(("folder", "v"), VECTORS)
def test_bad_vectors_are_named_by_their_fault_and_good_ones_succeed(folder: Path, v: dict[str, Any]) -> None:
    bad = "error" in v or v["out"] == {"valid": False}
    assert bad is ("_" in v["name"]), v["name"]


@pytest.mark.parametrize("folder", sorted({p.values[0] for p in VECTORS}), ids=lambda folder: folder.name)
def test_every_operation_has_a_vector(folder: Path) -> None:
    tried = {v["operation"] for where, v in (p.values for p in VECTORS) if where == folder}
    assert tried == set(MADE_BY[folder].OPERATIONS)


@pytest.mark.parametrize("scheme", [name for name in names() if name not in GENERATE.APART])
def test_a_recorded_round_plays_again(scheme: str) -> None:
    """A server fed with the recorded client frames sends the recorded server frames and finds the sum."""
    value = json.loads((HERE / f"round-{scheme.replace('+', '-plus')}.json").read_text())
    fields = dict(line.split("=") for line in value["params"].split("\n"))
    params = params_from(
        {k: float.fromhex(v) if k == "clip" else v if k == "scheme" else int(v) for k, v in fields.items()}
    )
    data = bytes.fromhex(value["roster"])
    server = server_session(
        scheme, params=params, roster=Roster.open(data, data[37:69]), model_hash=b"\x11" * 32,
        config_hash=b"\x22" * 32, round=4,
    )  # fmt: skip
    sent = [f.encode().hex() for f in server.start()]
    recorded = [f["data"] for f in value["frames"] if f["sender"] == 0]
    up = [f for f in value["frames"] if f["sender"] != 0]
    for f in up:
        while len(sent) < len(recorded) and value["frames"].index(f) > _last(
            value["frames"], recorded[len(sent)]
        ):
            sent += [x.encode().hex() for x in server.close_phase()]
        sent += [x.encode().hex() for x in server.receive(f["sender"], bytes.fromhex(f["data"]))]
    if server.phase is not Phase.DONE:
        server.close_phase()
    assert sent == recorded
    assert (
        server.result().codes.tolist() == value["sum"]
        and list(server.result().survivors) == value["survivors"]
    )
    total = [sum(x) for x in zip(*(v for i, v in value["inputs"].items() if int(i) in value["survivors"]))]
    assert total == value["sum"]


def _last(frames: list[dict[str, Any]], data: str) -> int:
    return next(at for at, f in enumerate(frames) if f["data"] == data)
