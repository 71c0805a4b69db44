"""`pytest audits/`: options, the shared task and controls, verdicts as outcomes, audits.json.

With workers (`-n`) all audits of one attack run on one of them, so that its control and whatever it prepares
are made once. pytest's own `--strict` makes inconclusive audits fail, beside what it does to markers and
settings.
"""

import json
import os
import re
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from merveil.attacks import protocol, registry
from merveil.attacks.base import Attack
from merveil.attacks.games import games
from merveil.attacks.record import record as make_record
from merveil.attacks.runner import (
    FLOORS,
    LONG_COURSE,
    SETTINGS,
    Trial,
    played,
    try_attack,
    try_on_courses,
    try_on_games,
    try_on_gates,
    try_on_sites,
)
from merveil.attacks.scenario import Task
from merveil.attacks.verdict import Verdict, succeeded
from merveil.audits.claims import CLAIMS, cases
from merveil.audits.controls import control_of
from merveil.mer.atomic import write_text
from merveil.mer.cores import cores

FULL = 4  # times the rounds of the quick form
CASE = re.compile(r"\[(A\d\d\S*)-[a-z+]+\]$")  # attack and scheme in a node id
GROUPED = "merveil_grouped"  # what a worker is told under this name
MOST = 4  # workers; one holds up to 3.5 GB for a while (A23-trap under ckks), others 2
FOLDER = Path(__file__).resolve().parent
TORCHLESS = ("protocol", "wire", *FLOORS)  # settings that train nothing


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("audits of merveil")
    group.addoption("--scheme", action="append", help="only this scheme (may be repeated)")
    group.addoption("--attack", action="append", help="only this attack, such as A24 (may be repeated)")
    group.addoption(
        "--full",
        action="store_true",
        help=f"{FULL} times the rounds, {protocol.FULL} times the plays, longer trainings: tighter bounds",
    )
    group.addoption("--audits-json", metavar="PATH", help="write one record an audit to PATH")
    group.addoption("--audit-data", metavar="F.npz", help="archive to audit on (default: synthetic faces)")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "claim(id): the SECURITY.md claim that this audit tries")
    config.stash[RECORDS] = []
    config.pluginmanager.register(Collector(config.stash[RECORDS]), "merveil-audits")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Before pytest-xdist reads its options: the catalogue runs on up to MOST cores."""
    option = config.option
    if "PYTEST_XDIST_WORKER" in os.environ or not hasattr(option, "numprocesses"):
        return  # a worker has no workers of its own; or pytest-xdist is not installed
    alone = config.args and all(Path(a.split("::")[0]).resolve() == FOLDER for a in config.args)
    held = option.usepdb or option.collectonly or option.capture == "no" or option.attack
    if option.numprocesses is None and option.dist == "no" and alone and not held:
        option.numprocesses = min(MOST, cores())
    if option.numprocesses:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # of each worker


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tells a worker whether an attack stays on one worker."""
    node.workerinput[GROUPED] = node.config.option.dist == "load"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With -n alone, one attack stays on one worker, by node ids: groups by marker fail on pytest 9.2."""
    if config.option.dist != "load":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByAttack(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope(nodeid)

    return ByAttack(config, log)


def scope(nodeid: str) -> str:
    """The attack of an audit, and any other test by itself."""
    found = CASE.search(nodeid)
    return found[1] if found else nodeid


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On workers the long attacks, those that train, come first, so that no worker ends with one."""
    if getattr(config, "workerinput", {}).get(GROUPED):
        items.sort(key=_trains, reverse=True)


def _trains(item: pytest.Item) -> bool:
    chosen = getattr(getattr(item, "callspec", None), "params", {}).get("attack")
    return chosen in registry.attacks() and registry.get(chosen).setting not in TORCHLESS


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
    """The task that the audits share, made when an audit needs it, and each attack's control, run once."""

    data: str | None
    full: bool
    strict: bool
    controls: dict[str, Trial] = field(default_factory=dict)

    @cached_property
    def task(self) -> Task:
        """Synthetic faces by default, so that an installed user can run the audits without any data."""
        pytest.importorskip("torch", reason="this audit trains networks: pip install 'merveil[mer,audits]'")
        if self.data:
            from merveil.mer.data.archive import load_archive

            return Task(load_archive(self.data))
        from merveil.mer.data.synthetic import synthetic_archive

        return Task(synthetic_archive(24, 8, 0))

    def _task(self, attack: Attack) -> Any:
        return None if attack.setting in TORCHLESS else self.task

    def control(self, attack: Attack) -> Trial:
        if attack.id not in self.controls:
            trial = control_of(attack, self._task(attack), seed=1)
            # Its finding is all that is needed; cases hold every frame and picture.
            self.controls[attack.id] = replace(trial, guesses=[], cases=[])
        return self.controls[attack.id]

    def attempt(self, attack: Attack, scheme: str) -> Trial:
        if attack.setting in ("protocol", *FLOORS):
            return played(attack, scheme, seed=2, full=self.full)
        if attack.setting == "noise":
            times = FULL if self.full else 1
            return try_on_games(attack, scheme, games(attack.id, scheme), seed=2, times=times)
        if attack.setting == "gate":
            return try_on_gates(attack, scheme, seed=2, times=protocol.FULL if self.full else 1)
        if attack.setting == "site":
            return try_on_sites(attack, scheme, seed=2, times=protocol.FULL if self.full else 1)
        if attack.setting == "course" and self.full:
            return try_on_courses(attack, self.task, scheme, seed=2, course=LONG_COURSE)
        setting = SETTINGS.get(attack.setting)
        if self.full and setting is not None:
            setting = replace(setting, rounds=FULL * setting.rounds)
        return try_attack(attack, self._task(attack), scheme, seed=2, setting=setting)


RECORDS = pytest.StashKey[list[dict[str, Any]]]()


class Collector:
    """Takes each audit's record out of its report: where workers run, that is how it comes to the front."""

    def __init__(self, records: list[dict[str, Any]]) -> None:
        self._records = records

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self._records += [value for key, value in report.user_properties if key == "audit"]


@pytest.fixture(scope="session")
def bench(request: pytest.FixtureRequest) -> Bench:
    options = request.config.getoption
    return Bench(options("--audit-data"), bool(options("--full")), bool(options("strict", False)))


@pytest.fixture
def audit(request: pytest.FixtureRequest, bench: Bench) -> Iterator[Any]:
    """A function (claim, attack, scheme) that tries the attack and ends the test by the verdict."""

    def run(claim: str, name: str, scheme: str) -> None:
        made, attack = CLAIMS[claim], registry.get(name)
        if not made.covers(scheme):
            pytest.skip(made.why_not(scheme))
        if not made.tries(attack, scheme):
            pytest.skip(f"{name} does not apply to {scheme}, only to {', '.join(attack.schemes)}")
        started = time.monotonic()
        control, trial = bench.control(attack), bench.attempt(attack, scheme)
        record = make_record(trial, control)
        record |= {
            "claim": claim,
            "adversary": attack.adversary.name,
            "seconds": round(time.monotonic() - started, 3),
        }
        verdict = Verdict(record["verdict"])
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
    held = record.get("held", 1.0)
    seen = "" if held == 1 else f"; the named defence was seen in {held:.3f} of the plays only"
    return (
        f"{record['statistic']}: {record['score']:.3f} [{low:.3f}, {high:.3f}], "
        f"chance {record['chance']:.3f}, "
        f"n = {record['n']} {record['unit']}; from {record['mde']:.3f} on it would have been seen{seen}"
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
    wide = {name: 2 + max(len(r[name]) for r in records) for name in ("id", "scheme", "verdict")}
    for r in sorted(records, key=lambda r: (r["claim"], r["id"], r["scheme"])):
        cells = "".join(r[name].ljust(wide[name]) for name in wide)
        terminalreporter.line(f"{r['claim']}  {cells}{_spoken(r)}")
    for line in tally(records):
        terminalreporter.line(line)


def tally(records: list[dict[str, Any]]) -> list[str]:
    """What was run of what there is: lines of the catalogue, claims, and how often each verdict came."""
    lines = registry.catalogue()
    done = {r["id"].split("-")[0] for r in records}
    pending = [name for name in lines if not lines[name]]
    won = {r["id"] for r in records if r["verdict"] != Verdict.CONTROL_FAILED.value}
    verdicts = Counter(r["verdict"] for r in records)
    return [
        f"catalogue: {len(done)} of {len(lines)} lines tried, "
        f"{len({name.split('-')[0] for name in won})} with a control that won; "
        f"not built yet: {', '.join(pending) or 'none'}",
        f"claims: {len({r['claim'] for r in records})} of {len(CLAIMS)}; "
        f"{len(records)} audits on {len({r['scheme'].split(',')[0] for r in records})} schemes, "
        f"{sum(r['seconds'] for r in records):.0f} s",
        "verdicts: " + ", ".join(f"{verdicts[v.value]} {v.value}" for v in Verdict),
    ]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Records go to PATH once every audit was tried, to PATH.partial where the run broke off."""
    path = session.config.getoption("--audits-json")
    if not path or hasattr(session.config, "workerinput"):
        return
    cut = exitstatus in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR)
    if cut or session.shouldfail or session.shouldstop:
        path = f"{path}.partial"
        warnings.warn(f"the run broke off: its records so far are in {path}", stacklevel=1)
    write_text(Path(path), json.dumps(session.config.stash[RECORDS], indent=2, allow_nan=False) + "\n")
