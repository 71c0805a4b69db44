"""Write the report: report.html (self-contained), report.json, report.md. Each whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from merveil.mer.atomic import write_text
from merveil.mer.extras import need
from merveil.report import words
from merveil.report.page import BANNER, build


def write(result: Mapping[str, Any], out: Path) -> Path:
    """The three files in `out`; returns the path of the page. result: `collect`'s, pictures included."""
    page = html(result)
    twin = {k: v for k, v in result.items() if k != "pictures"}
    write_text(out / "report.json", json.dumps(twin, indent=1, allow_nan=False) + "\n")
    write_text(out / "report.md", markdown(twin))
    write_text(out / "report.html", page)
    return out / "report.html"


def html(result: Mapping[str, Any]) -> str:
    """The page. Text is escaped by the template; only figures of our own making are passed as markup."""
    jinja2 = need("jinja2", "report")
    text = Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    page = build(result)
    drawn = [
        row for part in (*page["attacks"], *(page["sums"] or {}).get("groups", ())) for row in part["rows"]
    ]
    for holder in (*drawn, *page["frontiers"]):
        holder["svg"] = need("markupsafe", "report").Markup(holder["svg"])
    return str(environment.from_string(text).render(page=page))


def markdown(result: Mapping[str, Any]) -> str:
    """The figures as tables."""
    data = result["data"]
    lines = ["# What the server can see, and what hiding it costs", ""]
    if data["synthetic"]:
        lines += [f"> {BANNER}", ""]
    lines += [
        f"{data['clips']} clips of {data['persons']} persons; {result['model']}; {result['protocol']}; "
        f"{result['rounds']} rounds; seed {result['seed']}.",
        "",
        "## Mechanisms",
        "",
        "| mechanism | UF1 (95 %) | UAR (95 %) | same predictions as plain | bytes sent | round |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for s in result["schemes"]:
        r, c = s["recognition"], s["cost"]
        same = {True: "yes, to the last bit", False: "no", None: "not compared"}[r["same_as_plain"]]
        lines.append(
            f"| {s['name']} | {_scored(r, 'uf1')} | {_scored(r, 'uar')} | {same} | "
            f"{words.size(c['uplink_bytes_per_client'])} | {words.duration(c['aggregation_seconds'])} |"
        )
    for name, b in result["baselines"].items():
        lines.append(f"| baseline {name} | {b['uf1']:.3f} | {b['uar']:.3f} | | | |")
    return "\n".join([*lines, *_attack_tables(result), *_closing(result)]) + "\n"


def _scored(r: Mapping[str, Any], name: str) -> str:
    low, high = r["ci95"][name]
    return f"{r[name]:.3f} ({low:.3f} to {high:.3f})"


def _attack_tables(result: Mapping[str, Any]) -> list[str]:
    head = ["| attack | mechanism | verdict | score (95 %) | chance | n | control |"]
    lines = [
        "",
        "## Attacks on one client's frames",
        "",
        *head,
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for s in (s for s in result["schemes"] if s["mechanism"]["dp"] == "none"):
        for a in s["leakage"]:
            low, high = a["ci95"]
            lines.append(
                f"| {a['id']} {a['title']} | {s['name']} | {a['verdict']} | {a['score']:.3f} ({low:.3f} to "
                f"{high:.3f}) | {a['chance']:.3f} | {a['n']} {a['unit']} | {a['control']['score']:.3f} |"
            )
    lines += _noise_table(result)
    lines += ["", "## What the published sum tells", "", "| attack | clients | score (95 %) | chance | n |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for curve in result["sums"]:
        for p in curve["points"]:
            low, high = p["ci95"]
            lines.append(
                f"| {curve['id']} {curve['title']} | {p['cohort']} | {p['score']:.3f} ({low:.3f} to "
                f"{high:.3f}) | {p['chance']:.3f} | {p['n']} {p['unit']} |"
            )
    return lines


def _noise_table(result: Mapping[str, Any]) -> list[str]:
    """Membership in the sum with and without noise; nothing where no mechanism adds any."""
    points = result["noisy_sums"]
    if not points:
        return []
    lines = ["", f"## What noise leaves of the sum of {points[0]['cohort']} clients", ""]
    lines += ["| mechanism | membership AUC (95 %) | chance | n |", "| --- | --- | --- | --- |"]
    for p in points:
        low, high = p["ci95"]
        lines.append(
            f"| {p['name']} | {p['score']:.3f} ({low:.3f} to {high:.3f}) | {p['chance']:.3f} | "
            f"{p['n']} {p['unit']} |"
        )
    return lines


def _closing(result: Mapping[str, Any]) -> list[str]:
    lines = ["", "## Guarantees", ""]
    lines += [f"- {s['name']}: {s['guarantee']}" for s in result["schemes"]]
    versions = ", ".join(f"{k} {v}" for k, v in result["versions"].items())
    return [
        *lines,
        "",
        f"{result['disclosure']}.",
        "",
        f"Data SHA-256 {result['data']['sha256']}; {versions}.",
    ]
