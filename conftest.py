"""Rules for all tests: what the mark `data` means, and a line that says how many such tests ran."""

import os
import signal
from pathlib import Path

import pytest


def pytest_configure() -> None:
    """A shell starts what it puts behind with interrupts ignored, and children would inherit that: programs
    that are interrupted by the tests would then never notice."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test marked `data` runs only where MERVEIL_DATA_DIR names a folder; a wrong name is an error."""
    if item.get_closest_marker("data") is None:
        return
    folder = os.environ.get("MERVEIL_DATA_DIR")
    if not folder:
        pytest.skip("MERVEIL_DATA_DIR is not set")
    if not Path(folder).is_dir():
        pytest.fail(f"MERVEIL_DATA_DIR names no folder: {folder}", pytrace=False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count by outcome the tests marked `data`: a suite that skipped them all must not look complete."""
    ran = sum(
        "data" in report.keywords
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        if report.when == "call"
    )
    skipped = sum("data" in report.keywords for report in terminalreporter.stats.get("skipped", []))
    where = "set" if os.environ.get("MERVEIL_DATA_DIR") else "not set"
    terminalreporter.write_line(
        f"data: {ran} tests used MERVEIL_DATA_DIR ({where}), {skipped} marked tests were skipped"
    )
