"""`pytest audits/`: options, the shared task and controls, verdicts as outcomes, audits.json.

pytest's own `--strict` makes inconclusive audits fail, beside what it does to markers and settings.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from merveil.attacks import registry
from merveil.attacks.base import Attack
from merveil.attacks.record import record as make_record
from merveil.attacks.runner import SETTINGS, Trial, try_attack
from merveil.attacks.scenario import Task
from merveil.attacks.verdict import Verdict, succeeded
from merveil.audits.claims import CLAIMS, cases
from merveil.audits.controls import control_of
from merveil.mer.atomic import write_text

FULL = 4  # times the rounds of the quick form


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("audits of merveil")
    group.addoption("--scheme", action="append", help="only this scheme (may be repeated)")
    group.addoption("--attack", action="append", help="only this attack, such as A24 (may be repeated)")
    group.addoption("--full", action="store_true", help=f"{FULL} times as many rounds: tighter bounds")
    group.addoption("--audits-json", metavar="PATH", help="write one record an audit to PATH")
    group.addoption("--audit-data", metavar="F.npz", help="archive to audit on (default: synthetic faces)")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "claim(id): the SECURITY.md claim that this audit tries")
    config.stash[RECORDS] = []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("claim")
    if marker is None or "attack" not in metafunc.fixturenames:
        return
    schemes = metafunc.config.getoption("--scheme")
    only = [name.upper() for name in metafunc.config.getoption("--attack") or []]
    chosen = [
        (attack, scheme)
        for attack, scheme in cases(marker.args[0])
        if (not schemes or scheme in schemes) and (not only or attack.upper() in only)
    ]
    metafunc.parametrize(("attack", "scheme"), chosen, ids=[f"{a}-{s}" for a, s in chosen])


@dataclass
class Bench:
    """The task that all audits share, and the control of each attack, run once."""

    task: Task
    full: bool
    strict: bool
    controls: dict[str, Trial] = field(default_factory=dict)

    def control(self, attack: Attack) -> Trial:
        if attack.id not in self.controls:
            self.controls[attack.id] = control_of(attack, self.task, seed=1)
        return self.controls[attack.id]

    def attempt(self, attack: Attack, scheme: str) -> Trial:
        setting = SETTINGS.get(attack.setting)
        if self.full and setting is not None:
            setting = replace(setting, rounds=FULL * setting.rounds)
        return try_attack(attack, self.task, scheme, seed=2, setting=setting)


RECORDS = pytest.StashKey[list[dict[str, Any]]]()


@pytest.fixture(scope="session")
def bench(request: pytest.FixtureRequest) -> Bench:
    """Synthetic faces by default, so that an installed user can run the audits without any data."""
    pytest.importorskip("torch", reason="the audits train networks: pip install 'merveil[mer,audits]'")
    path = request.config.getoption("--audit-data")
    if path:
        from merveil.mer.data.archive import load_archive

        archive = load_archive(path)
    else:
        from merveil.mer.data.synthetic import synthetic_archive

        archive = synthetic_archive(24, 8, 0)
    options = request.config.getoption
    return Bench(Task(archive), bool(options("--full")), bool(options("strict", False)))


@pytest.fixture
def audit(request: pytest.FixtureRequest, bench: Bench) -> Iterator[Any]:
    """A function (claim, attack, scheme) that tries the attack and ends the test by the verdict."""

    def run(claim: str, name: str, scheme: str) -> None:
        made = CLAIMS[claim]
        if not made.covers(scheme):
            pytest.skip(made.why_not(scheme))
        started, attack = time.monotonic(), registry.get(name)
        control, trial = bench.control(attack), bench.attempt(attack, scheme)
        record = make_record(trial, control)
        record |= {
            "claim": claim,
            "adversary": attack.adversary.name,
            "seconds": round(time.monotonic() - started, 3),
        }
        verdict = Verdict(record["verdict"])
        request.config.stash[RECORDS].append(record)
        request.node.user_properties.append(("audit", record))
        _end(made.leak, succeeded(trial.finding, attack.rule), verdict, record, bench.strict, request.node)

    yield run


def _end(leak: bool, won: bool, verdict: Verdict, record: dict[str, Any], strict: bool, node: Any) -> None:
    """Protected passes, broken and control-failed fail, a declared leak passes if shown."""
    text = f"{verdict.value}: {_spoken(record)}"
    if verdict is Verdict.CONTROL_FAILED:
        pytest.fail(f"{text}; its control scored {record['control']['score']:.3g}", pytrace=False)
    if not leak and verdict is not Verdict.PROTECTED:
        pytest.fail(text, pytrace=False)
    if leak and not won:
        if strict or verdict is Verdict.PROTECTED:
            pytest.fail(f"the declared leak was not shown, {text}", pytrace=False)
        node.user_properties.append(("inconclusive", text))


def _spoken(record: dict[str, Any]) -> str:
    low, high = record["ci95"]
    return (
        f"{record['statistic']}: {record['score']:.3f} [{low:.3f}, {high:.3f}], "
        f"chance {record['chance']:.3f}, "
        f"n = {record['n']} {record['unit']}; from {record['mde']:.3f} on it would have been seen"
    )


def pytest_report_teststatus(report: Any, config: pytest.Config) -> Any:
    """`inconclusive` is an outcome of its own: neither passed nor failed."""
    if report.when == "call" and any(key == "inconclusive" for key, _ in report.user_properties):
        return "inconclusive", "I", "INCONCLUSIVE"
    return None


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    records = config.stash[RECORDS]
    if not records:
        return
    terminalreporter.section("audits")
    for r in sorted(records, key=lambda r: (r["claim"], r["id"], r["scheme"])):
        terminalreporter.line(f"{r['claim']} {r['id']:<8}{r['scheme']:<9}{r['verdict']:<15}{_spoken(r)}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--audits-json")
    if path:
        write_text(Path(path), json.dumps(session.config.stash[RECORDS], indent=2, allow_nan=False) + "\n")
