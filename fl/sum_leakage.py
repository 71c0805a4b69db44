"""What a published sum tells by cohort and network: the one table that docs and warnings read.

The figures are measured (`merveil attack A25-sum --curve`); sum_leakage.json holds them, and a test holds
the table in docs/attacks.md to it. They describe exact sums, whatever the scheme.
"""

import json
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def figures() -> dict[str, Any]:
    """rows: model, name, attack and auc by cohort; floor: the cohort below which a run warns."""
    found: dict[str, Any] = json.loads((files("merveil.fl") / "sum_leakage.json").read_text(encoding="utf-8"))
    return found


def table() -> str:
    """The Markdown table of docs/attacks.md."""
    rows = figures()["rows"]
    cohorts = list(rows[0]["auc"])
    lines = ["| clients | " + " | ".join(cohorts) + " |", "|---" * (len(cohorts) + 1) + "|"]
    for row in rows:
        cells = [f"{v:.3f}".removeprefix("0") for v in row["auc"].values()]
        lines.append(f"| {row['name']}: {row['attack']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def warning(model: str, clients: int) -> str:
    """What a sum over so many clients tells, for a cohort below the floor; "" from the floor on.

    A network that was not measured is told the highest and lowest figure of those that were.
    """
    data = figures()
    if clients >= data["floor"]:
        return ""
    at = max((int(c) for c in data["rows"][0]["auc"] if int(c) <= clients), default=2)
    rows = [row for row in data["rows"] if row["model"] == model] or data["rows"]
    values = sorted(row["auc"][str(at)] for row in rows)
    measured = f"{values[0]:.3f}" if len(rows) == 1 else f"{values[0]:.3f} to {values[-1]:.3f}"
    whose = model if len(rows) == 1 else "the networks that were measured"
    return (
        f"{clients} clients: a sum over so few tells which clips are in it, under any scheme; at {at} "
        f"clients of {data['clips']} clips an attack had AUC {measured} on {whose} (0.5 is chance; "
        "docs/attacks.md). Only more clients or differential privacy help"
    )
