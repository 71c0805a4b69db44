"""`merveil evaluate --dp`: each mode through the command line, its guarantee in the JSON, and refusals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from merveil.cli import main
from merveil.mer.data.archive import save_archive

pytest.importorskip("torch")

SUMS = ["--epsilon", "8", "--delta", "1e-3", "--norm-clip", "1"]
SGD = ["--dp", "sgd", *SUMS, "--set", "batch=4", "--set", "sgd_accountant=rdp", "--set", "max_cut=1"]
BOTH = [
    "--dp",
    "distributed+sgd",
    *SUMS,
    "--set",
    "batch=4",
    "--set",
    "sgd_accountant=rdp",
    "--set",
    "sgd_clip=1",
]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten people with three clips of noise each, one a class."""
    rng, n = np.random.default_rng(3), 30
    return save_archive(
        tmp_path_factory.mktemp("data") / "toy.npz",
        x=rng.integers(0, 256, (n, 28, 28, 3)).astype(np.uint8),
        y=np.arange(n) % 3,
        dataset=np.array(["toy"] * n),
        subject=np.array([f"s{i // 3}" for i in range(n)]),
        clip=np.array([f"c{i}" for i in range(n)]),
    )


@pytest.mark.parametrize(
    "words, unit, against",
    [
        (["--dp", "distributed", "--scheme", "secagg", *SUMS], "client", "noise shares are unknown"),
        (["--dp", "central", *SUMS, "--dp-unit", "person"], "person", "the server is trusted"),
        ([*SGD, "--scheme", "secagg"], "clip", "everyone who sees a client's uploads"),
        ([*BOTH, "--scheme", "secagg"], "client", "noise shares are unknown"),
    ],
)
def test_each_mode_states_its_guarantee(
    words: list[str], unit: str, against: str, archive: Path, capsys: Any, schema: Any
) -> None:
    base = ["evaluate", "--data", str(archive), "--mode", "federated", "--protocol", "kfold:2", "--json"]
    base = [*base, "--clients", "subject", "--rounds", "2"]
    if "secagg" in words:
        base[base.index("kfold:2")] = "kfold:5"
    assert main([*base, *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert schema.check(found, schema.load("evaluate")) == []
    told = found["info"]["privacy"]
    assert told["unit"] == unit and against in told["against"] and told["epsilon"] <= 8.0
    assert told["delta"] == 1e-3 and told["relation"] and told["participation"] and told["accountant"]
    assert "the scores, have no guarantee" in told["scope"] and found["dp"] == words[words.index("--dp") + 1]
    assert ("clips" in told) is ("+sgd" in found["dp"])
    assert f"{unit}-level" in found["info"]["guarantee"]


@pytest.mark.parametrize(
    "words, text",
    [
        (["--dp", "sgd", *SUMS], "--batch"),
        (["--dp", "noise", *SUMS], "not known"),
        (["--dp", "distributed", *SUMS, "--scheme", "ckks"], "not with ckks"),
        (["--dp", "central", "--epsilon", "8", "--norm-clip", "1"], "--delta"),
        ([*SGD, "--dp-unit", "person"], "--dp-unit clip"),
        (["--dp", "central", *SUMS[:2], "--delta", "0.3", "--norm-clip", "1"], "publishes one client whole"),
    ],
)
def test_what_would_break_the_guarantee_is_refused(
    words: list[str], text: str, archive: Path, capsys: Any
) -> None:
    base = [
        "evaluate",
        "--data",
        str(archive),
        "--mode",
        "federated",
        "--protocol",
        "kfold:2",
        "--rounds",
        "1",
    ]
    assert main([*base, *words]) == 2
    assert text in capsys.readouterr().err


def test_an_epsilon_of_eighty_runs(archive: Path, tmp_path: Path, capsys: Any) -> None:
    words = ["train", "--data", str(archive), "--rounds", "1", "--out", str(tmp_path / "a"), "--json", "-q"]
    assert (
        main([*words, "--dp", "distributed", "--epsilon", "80", "--delta", "1e-3", "--norm-clip", "1"]) == 0
    )
    told = json.loads(capsys.readouterr().out)["privacy"]
    assert 78 < told["epsilon"] <= 80 and told["mechanism"]["tail"] > 12
