"""Claims, audits and SECURITY.md hold each other, both ways; outcomes follow the verdicts."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")

import merveil.audits
from merveil.attacks.registry import PENDING, attacks, catalogue, get
from merveil.attacks.scenario import Task
from merveil.attacks.verdict import Verdict
from merveil.audits.claims import CLAIMS, cases, claimed, claims_of
from merveil.audits.conftest import (
    MOST,
    RECORDS,
    _end,
    pytest_cmdline_main,
    pytest_sessionfinish,
    scope,
    tally,
)
from merveil.audits.controls import BUILDS
from merveil.mer.cores import cores
from merveil.mer.data.archive import save_archive
from merveil.protocols.registry import names

FOLDER = Path(merveil.audits.__path__[0])
ROOT = Path(__file__).parents[2]
MARKER = re.compile(r'pytest\.mark\.claim\("([CN]-\d\d)"\)')


def test_every_claim_has_an_audit_and_every_audit_a_claim() -> None:
    marked = {name for path in FOLDER.glob("test_*.py") for name in MARKER.findall(path.read_text())}
    assert marked == set(CLAIMS)


def test_every_attack_tries_a_claim() -> None:
    tried = {name for claim in CLAIMS.values() for name in claim.attacks}
    assert tried == set(attacks())


def test_the_whole_catalogue_is_there_with_an_adversary_and_a_control() -> None:
    """A01 to A34, each with a module; a line without one is announced as pending, and only such a line."""
    lines = catalogue()
    assert list(lines) == [f"A{n:02d}" for n in range(1, 35)]
    missing = {line for line, built in lines.items() if not built}
    assert missing <= set(PENDING), f"{sorted(missing)} have no module and are not announced"
    for name, attack in attacks().items():
        assert attack.adversary.name and attack.rule.success > 0
        assert attack.setting != "protocol" or name in BUILDS, f"{name} has no positive control"


def test_the_summary_counts_what_was_run_and_what_is_missing() -> None:
    made = [
        {"id": "A03", "claim": "C-41", "scheme": "plain", "verdict": "protected", "seconds": 1.0},
        {"id": "A20-time", "claim": "N-40", "scheme": "plain", "verdict": "broken", "seconds": 1.5},
        {"id": "A20", "claim": "C-02", "scheme": "secagg", "verdict": "control-failed", "seconds": 0.5},
    ]
    first, second, third = tally(made)
    assert first.startswith("catalogue: 2 of 34 lines tried, 2 with a control that won; not built yet: ")
    assert second == f"claims: 3 of {len(CLAIMS)}; 3 audits on 2 schemes, 3 s"
    assert third == "verdicts: 1 broken, 1 protected, 0 underpowered, 1 control-failed"


def test_an_attack_that_does_not_apply_is_skipped_by_name() -> None:
    claim = CLAIMS["C-40"]
    assert claim.covers("ckks") and not claim.tries(get("A01"), "ckks")
    assert claimed("A01", "ckks") is None and claimed("A01", "secagg") == "C-40"
    assert claims_of("A20") == ["C-02", "N-01"]


def test_every_scheme_is_covered_by_a_claim_or_explained() -> None:
    for name, claim in CLAIMS.items():
        assert {scheme for _, scheme in cases(name)} == set(names())
        for scheme in names():
            assert claim.covers(scheme) or claim.id in claim.why_not(scheme)
    for scheme in names():
        assert any(c.covers(scheme) and not c.leak for c in CLAIMS.values())


def test_security_md_lists_the_same_ids() -> None:
    path = ROOT / "SECURITY.md"
    if not path.exists():
        pytest.skip("SECURITY.md is not in this tree (an installed package does not ship it)")
    rows = set(re.findall(r"^\|\s*`?([CN]-\d\d)`?\s*\|", path.read_text(), re.M))
    assert rows == set(CLAIMS)


def record(score: float = 0.0) -> dict[str, Any]:
    return {
        "statistic": "share",
        "score": score,
        "ci95": [score, score],
        "chance": 0.0,
        "n": 10,
        "unit": "clients",
        "mde": 0.3,
        "control": {"score": 1.0},
    }


@pytest.mark.parametrize(
    ("leak", "won", "verdict", "strict", "outcome"),
    [
        (False, False, Verdict.PROTECTED, False, "passed"),
        (False, False, Verdict.UNDERPOWERED, False, "failed"),
        (False, True, Verdict.BROKEN, False, "failed"),
        (False, False, Verdict.CONTROL_FAILED, False, "failed"),
        (True, True, Verdict.BROKEN, False, "passed"),
        (True, False, Verdict.UNDERPOWERED, False, "inconclusive"),
        (True, False, Verdict.UNDERPOWERED, True, "failed"),
        (True, False, Verdict.PROTECTED, False, "failed"),
        (True, False, Verdict.CONTROL_FAILED, False, "failed"),
    ],
)
def test_outcomes(leak: bool, won: bool, verdict: Verdict, strict: bool, outcome: str) -> None:
    node = SimpleNamespace(user_properties=[])
    try:
        _end(leak, won, verdict, record(), strict, node)
        found = "inconclusive" if node.user_properties else "passed"
    except pytest.fail.Exception:
        found = "failed"
    assert found == outcome


def test_filters_and_records(task: Task, tmp_path: Path) -> None:
    a = task.archive
    data = save_archive(
        tmp_path / "waves.npz", x=a.x, y=a.y, dataset=a.dataset, subject=a.subject, clip=a.clip, meta=a.meta
    )
    out = tmp_path / "audits.json"
    command = [sys.executable, "-m", "pytest", str(FOLDER), "-q", "-p", "no:cacheprovider"]
    command += ["--import-mode=importlib", f"--audit-data={data}", f"--audits-json={out}"]
    command += ["--attack", "a17", "--attack", "A20", "--scheme", "plain"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stdout
    found = json.loads(out.read_text())
    kept = {(r["id"], r["claim"], r["scheme"], r["verdict"]) for r in found}
    assert kept == {("A17", "C-03", "plain", "protected"), ("A20", "N-01", "plain", "broken")}
    schema = json.loads((ROOT / "docs/schemas/audits.json").read_text())
    needed = set(schema["items"]["required"])
    assert all(needed <= set(r) for r in found)
    assert "2 passed" in done.stdout and "C-03  A17" in done.stdout


def test_workers_bring_every_record_and_keep_an_attack_together(tmp_path: Path) -> None:
    out = tmp_path / "audits.json"
    command = [sys.executable, "-m", "pytest", str(FOLDER), "-v", "-n", "2", "-p", "no:cacheprovider"]
    command += ["--import-mode=importlib", f"--audits-json={out}", "--scheme", "plain", "--scheme", "secagg"]
    command += ["--attack", "A17", "--attack", "A13"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    kept = sorted((r["id"], r["scheme"]) for r in json.loads(out.read_text()))
    assert kept == [("A13", "plain"), ("A13", "secagg"), ("A17", "plain"), ("A17", "secagg")]
    ran = re.findall(r"\[gw(\d)\].* PASSED \S+\[(A\d\d)-\w+\]", done.stdout)
    assert len(ran) == 4 and len(set(ran)) == 2, done.stdout
    assert "4 audits on 2 schemes" in done.stdout


@pytest.mark.parametrize(
    ("changes", "args", "workers"),
    [
        ({}, [str(FOLDER)], min(MOST, cores())),
        ({"attack": ["A17"]}, [str(FOLDER)], None),  # a few audits: workers cost more than they save
        ({"numprocesses": 0}, [str(FOLDER)], 0),
        ({"usepdb": True}, [str(FOLDER)], None),
        ({"collectonly": True}, [str(FOLDER)], None),
        ({}, [str(FOLDER / "test_c01_frames.py")], None),
        ({}, [str(FOLDER), str(ROOT / "tests")], None),
    ],
)
def test_the_whole_catalogue_alone_runs_on_workers(
    changes: dict[str, Any], args: list[str], workers: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    plain = {"numprocesses": None, "dist": "no", "usepdb": False, "collectonly": False, "capture": "fd"}
    made = SimpleNamespace(args=args, option=SimpleNamespace(**{**plain, "attack": None, **changes}))
    pytest_cmdline_main(made)
    assert made.option.numprocesses == workers


def test_an_audit_is_kept_with_its_attack() -> None:
    assert scope("audits/test_n32.py::test_n32[A23-seer-secagg+]") == "A23-seer"
    assert scope("audits/test_c03.py::test_c03[A17-plain]") == "A17"
    for other in ("tests/a.py::test_a[A17-plain-x y]", "tests/a.py::test_b"):
        assert scope(other) == other


def test_a_worker_starts_no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    option = SimpleNamespace(
        numprocesses=None, dist="no", usepdb=False, collectonly=False, capture="fd", attack=None
    )
    pytest_cmdline_main(SimpleNamespace(args=[str(FOLDER)], option=option))
    assert option.numprocesses is None and option.dist == "no"


@pytest.mark.parametrize("cut", ["interrupted", "shouldfail", "no"])
def test_a_run_that_broke_off_leaves_no_whole_file(cut: str, tmp_path: Path) -> None:
    path = tmp_path / "audits.json"
    config = SimpleNamespace(getoption=lambda name: str(path), stash={RECORDS: [{"id": "A17"}]})
    session = SimpleNamespace(config=config, shouldfail=cut == "shouldfail", shouldstop=False)
    code = pytest.ExitCode.INTERRUPTED if cut == "interrupted" else pytest.ExitCode.OK
    if cut == "no":
        pytest_sessionfinish(session, code)
        assert json.loads(path.read_text()) == [{"id": "A17"}]
        return
    with pytest.warns(UserWarning, match="broke off"):
        pytest_sessionfinish(session, code)
    assert not path.exists() and json.loads(path.with_name("audits.json.partial").read_text())


def test_the_long_form_trains_longer_and_plays_many_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    from merveil.attacks import runner
    from merveil.audits import conftest

    asked: list[Any] = []
    monkeypatch.setattr(conftest, "try_on_courses", lambda *a, **k: asked.append(k["course"]))
    bench = conftest.Bench(None, full=True, strict=False)
    bench.__dict__["task"] = None
    bench.attempt(get("A27"), "plain")
    assert asked == [runner.LONG_COURSE] and runner.LONG_COURSE.targets > runner.COURSE.targets
    assert runner.LONG_SUMS["A21-rounds"]["secagg"][:2] == (50, 200)
    monkeypatch.setattr(runner, "LONG_SUMS", {"A21-rounds": {"plain": (9, 30, 1)}})
    found = bench.attempt(get("A21-rounds"), "plain").finding
    assert found.details["clients"] == 9 and found.details["rounds"] == 30
    assert found.details["vectors_exact"] == found.score == 1.0 and found.n == 1
