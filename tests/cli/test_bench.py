"""`merveil bench`: the contracted fields, checked exactness, and what it does with bad input."""

import json
from typing import Any

import pytest

from merveil.cli import main
from merveil.cli.bench import bench
from merveil.protocols.lattice.params import LatticeParams
from merveil.protocols.registry import get, names


def _lattice_upload() -> int:
    """Ciphertext and the sealed shares of eight members, which ride in the one frame."""
    params = get("lattice").params(8, 999, bits=12)
    assert isinstance(params, LatticeParams)
    return params.layout.size + 8 * (params.share_size + 16)


@pytest.mark.parametrize("scheme", names())
@pytest.mark.parametrize("dropouts", [0, 2])
def test_the_json_has_the_contracted_fields(
    scheme: str, dropouts: int, capsys: pytest.CaptureFixture[str], schema: Any
) -> None:
    words = ["bench", scheme, "--clients", "8", "--size", "999", "--bits", "12", "--dropouts", str(dropouts)]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert schema.check(found, schema.load("bench")) == []
    assert found["exact"] is True and found["scheme"] == scheme
    assert (found["clients"], found["size"], found["bits"], found["dropouts"]) == (8, 999, 12, dropouts)
    assert (found["share_seconds"] == 0.0) is (scheme == "plain")
    packed = {"ckks": 2 * 36_864, "lattice": _lattice_upload()}.get(scheme, 999 * (12 + 3) / 8) / 999
    assert packed < found["uplink_bytes_per_value"] < packed + 0.5, "a packed frame, with little around it"
    assert found["uplink_bytes_per_client"] >= 999 * found["uplink_bytes_per_value"] - 1
    assert 10_000_000 < found["server_peak_bytes"] < 500_000_000
    assert found["mask_seconds"] > 0 and found["server_seconds"] > 0


@pytest.mark.parametrize("scheme", [s for s in names() if s != "plain"])
def test_too_many_dropouts_abort(scheme: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", scheme, "--clients", "8", "--size", "10", "--dropouts", "6"]) == 3
    assert "BELOW_THRESHOLD" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["--dropouts", "5"], ["--dropouts", "-1"], ["--clients", "0"], ["--size", "0"], ["--bits", "3"],
     ["--threads", "0"]],
)  # fmt: skip
def test_bad_input(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "plain", "--clients", "5", "--size", "10", *words]) == 2
    assert capsys.readouterr().err.startswith("merveil bench: ")


def test_the_table_shows_every_field(capsys: pytest.CaptureFixture[str], schema: Any) -> None:
    assert main(["bench", "plain", "--clients", "3", "--size", "10"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == schema.load("bench")["required"]


def test_a_wrong_sum_is_not_called_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check compares with the codes in clear, so a spoilt sum is seen."""
    from merveil.cli import bench as module

    result = module.Server.result

    def spoilt(self: module.Server) -> tuple[dict[str, Any], Any]:
        head, codes = result(self)
        return head, codes + 1

    monkeypatch.setattr(module.Server, "result", spoilt)
    assert bench("plain", 3, 10, 16, 0)["exact"] is False


@pytest.mark.parametrize("keys", [None, "threshold", "authority"])
def test_ckks_prints_its_own_figures(
    keys: str | None, capsys: pytest.CaptureFixture[str], schema: Any
) -> None:
    words = ["bench", "ckks", "--clients", "6", "--size", "5000", "--dropouts", "1"]
    words += ["--keys", keys] if keys else []
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert schema.check(found, schema.load("bench")) == [] and found["exact"] is True
    own = found["ckks"]
    assert own["keys"] == (keys or "threshold") and own["smudging_bits"] == 40
    assert own["tau"] == own["ciphertexts"] == 2 and own["verify_bytes"] == 6 * 2 * 36_864
    assert own["headroom_bits"] >= 0 and 71 < own["log2_q"] < 73
    assert found["downlink_bytes_per_client"] > 5 * 2 * 36_864, "the largest is a decryptor's"
    assert main(words) == 0
    assert "verify_bytes" in capsys.readouterr().out


def test_keys_are_an_option_of_ckks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "plain", "--clients", "5", "--size", "10", "--keys", "authority"]) == 2
    assert "option of ckks" in capsys.readouterr().err
