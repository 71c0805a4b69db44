"""Secure rounds of an NVFlare job: the weighted mean, lost clients, and what a lying server gets."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from merveil.fl.deploy.member import Member, Public
from merveil.fl.deploy.task import Task
from merveil.fl.nvflare import arrays
from merveil.protocols.errors import LocalError
from merveil.protocols.primitives.sign import sign

ROOT = Path(__file__).resolve().parents[2]


def weighted_mean(numbers: Any) -> float:
    """What the clients' updates average to: number / 100, weighted by number."""
    found = list(numbers)
    return sum(n * n for n in found) / sum(found) / 100


def values(done: Any) -> np.ndarray:
    assert done.panic == "" and done.model is not None, (done.panic, done.log)
    return np.concatenate([array.reshape(-1) for array in done.model.values()])


def test_rounds_give_the_weighted_mean_and_keep_the_models_types(job: Any) -> None:
    done = job(rounds=2)
    np.testing.assert_allclose(values(done), 2 * weighted_mean(range(1, 6)), atol=1e-5)
    assert {n: (a.shape, str(a.dtype)) for n, a in done.model.items()} == {
        "a": ((2, 3), "float32"),
        "b": ((4,), "float64"),
    }
    assert (done.exchange, sorted(done.trained)) == (10, sorted([1, 2, 3, 4, 5] * 2))


@pytest.mark.parametrize("exchange", [1, 2, 3, 4, 5])
def test_a_client_lost_at_any_task_is_a_dropout(job: Any, exchange: int) -> None:
    done = job(up=lambda client, now, answer: None if client == "site-2" and now >= exchange else answer)
    inside = [1, 3, 4, 5] if exchange <= 3 else [1, 2, 3, 4, 5]  # its vector had arrived
    np.testing.assert_allclose(values(done), weighted_mean(inside), atol=1e-5)


@pytest.mark.parametrize("exchange", [1, 3, 5])
def test_two_lost_clients_of_five_end_the_job_and_give_no_model(job: Any, exchange: int) -> None:
    lost = ("site-2", "site-3")
    done = job(
        up=lambda client, now, answer: None if client in lost and now >= exchange else answer,
        attempts=1,
        max_aborted=1,
    )
    assert "BELOW_THRESHOLD" in done.panic and done.model is None


def test_a_server_that_is_started_again_uses_new_round_numbers(job: Any, root: Path) -> None:
    for _ in range(2):
        np.testing.assert_allclose(values(job()), weighted_mean(range(1, 6)), atol=1e-5)
    (root / "server" / "rounds.json").unlink()
    done = job(attempts=1, max_aborted=1)
    assert "ROUND_REUSED" in "".join(done.log) and done.panic


def test_answers_hold_frames_and_nothing_of_the_executors_own(job: Any) -> None:
    done = job()
    for answer in done.answers:
        assert {key for key in answer if not key.startswith("__")} == {"merveil"}
        assert set(answer["merveil"]) == {"index", "proof", "frames"}
        assert all(isinstance(frame, bytes) for frame in answer["merveil"]["frames"])


@pytest.mark.parametrize("name", ["train", "validate", "submit_model"])
def test_a_task_outside_a_secure_round_is_refused_and_trains_nothing(job: Any, name: str) -> None:
    from nvflare.apis.dxo import DXO, DataKind
    from nvflare.apis.fl_constant import ReturnCode

    task = DXO(DataKind.WEIGHTS, data={"a": np.zeros(2)}).to_shareable()
    executor = job.executors["site-1"]
    answer = executor.execute(name, task, job.context("site-1"), job.signal)
    assert answer.get_return_code() == ReturnCode.TASK_UNSUPPORTED and "DXO" not in answer
    assert executor.executor.log == []


@pytest.mark.parametrize("what", ["model", "config"])
def test_another_model_or_configuration_for_one_client_is_refused(job: Any, what: str) -> None:
    def bend(client: str, exchange: int, task: Any) -> Any:
        if client == "site-3" and "config" in task["merveil"]:
            if what == "config":
                task["merveil"]["config"] += " "
            else:
                task["DXO"]["data"]["b"][0] += 1e-9
        return task

    done = job(down=bend)
    np.testing.assert_allclose(values(done), weighted_mean([1, 2, 4, 5]), atol=1e-5)
    assert "MODEL_MISMATCH" in "".join(done.log) and 3 not in done.trained


def test_a_scheme_that_the_clients_policy_does_not_name_is_refused(job: Any) -> None:
    done = job(scheme="plain", attempts=1, max_aborted=1)
    assert "PARAMS_BELOW_FLOOR" in "".join(done.log) and done.model is None


@pytest.mark.parametrize("kind", ["copied proof", "no proof", "own proof"])
def test_a_client_cannot_speak_for_another_member(job: Any, kind: str) -> None:
    """Client site-1, which is heard first, says that it is member 2."""
    seen: dict[str, bytes] = {}

    def pose(client: str, exchange: int, answer: Any) -> Any:
        record = answer["merveil"]
        seen[client] = record["proof"]
        if client == "site-1":
            record["index"] = 2
            proofs = {"no proof": b"", "own proof": record["proof"], "copied proof": seen.get("site-2", b"x")}
            record["proof"] = proofs[kind]
        return answer

    done = job(up=pose)
    np.testing.assert_allclose(values(done), weighted_mean([2, 3, 4, 5]), atol=1e-5)


def test_a_proof_is_good_for_one_client_of_one_job_and_one_seat(root: Path) -> None:
    pytest.importorskip("nvflare", reason="nvflare is not installed: pip install 'merveil[nvflare]'")
    from merveil.fl.nvflare.controller import _Seats
    from merveil.fl.nvflare.executor import client_fields

    member, task = (
        Member.load(root / "site-1"),
        Task("secagg", 1, 1, 5, 10, 16, 1.0, 1, 0, "00" * 32, "11" * 32),
    )

    def answer(client: str, job: str = "job-1") -> dict[str, Any]:
        fields = client_fields(task, member, job, client)
        return {"index": member.index, "proof": sign(member.identity.sign_key, arrays.PURPOSE, *fields)}

    seats = _Seats(task, Public.load(root / "server"), "job-1")
    assert seats.member("a", answer("a", "job-2")) == 0
    assert seats.member("a", answer("b")) == 0
    assert seats.member("a", answer("a")) == member.index
    assert seats.member("b", answer("b")) == 0, "the member has its seat"
    assert seats.member("a", answer("a")) == member.index
    assert seats.client == {member.index: "a"}


def test_a_task_of_no_session_is_a_rollback(job: Any) -> None:
    from nvflare.apis.shareable import Shareable

    executor = job.executors["site-1"]
    for record, code in (
        ({"frames": []}, "STATE_ROLLBACK"),
        ({"task": b"{}"}, "MALFORMED_FRAME"),
        ({"task": "text"}, "MALFORMED_FRAME"),
        ([], "MALFORMED_FRAME"),
    ):
        task = Shareable({"merveil": record})
        answer = executor.execute("merveil", task, job.context("site-1"), job.signal)
        assert answer["merveil"]["code"] == code and "frames" not in answer["merveil"]


@pytest.mark.parametrize("value", [{}, [1.0], {"a": [1.0]}, {"a": np.zeros(2, int)}])
def test_models_are_named_arrays_of_floats(value: Any) -> None:
    with pytest.raises(LocalError):
        arrays.checked(value)


def test_an_answer_of_another_shape_or_name_is_refused() -> None:
    model = arrays.checked({"a": np.zeros((2, 2)), "b": np.zeros(1)})
    for other in ({"a": np.zeros(4), "b": np.zeros(1)}, {"a": np.zeros((2, 2))}):
        with pytest.raises(LocalError):
            arrays.difference(model, other, absolute=True)
    step = {"a": np.ones((2, 2)), "b": np.ones(1)}
    assert arrays.difference(model, step, absolute=False).tolist() == [1.0] * 5


@pytest.mark.slow
def test_the_example_runs_in_nvflares_simulator(tmp_path: Path) -> None:
    pytest.importorskip("nvflare", reason="nvflare is not installed: pip install 'merveil[nvflare]'")
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "nvflare_job" / "job.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "largest difference to the clear mean" in done.stdout
