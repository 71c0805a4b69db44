"""From the measured figures to what the page says: cards, table, figures, words. No measuring here.

Guarantees: every statement on the first screen is computed from the figures of this comparison; a verdict
that was not reached (underpowered, failed control) is said as such.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from merveil.report import svg, words

Result = Mapping[str, Any]
BANNER = (
    "Synthetic faces. Clips of drawn faces, moved by known muscle actions: the figures show that the whole "
    "chain works and what attacks can do. They say nothing about how well emotions of real people are "
    "recognised."
)


def build(result: Result) -> dict[str, Any]:
    """Everything the template shows. result: the content of report.json plus `pictures`."""
    data = result["data"]
    return {
        "title": "What the server can see, and what hiding it costs",
        "lead": _lead(result),
        "banner": BANNER if data["synthetic"] else "",
        "cards": [_rebuild_card(result), _recognition_card(result), _cost_card(result), _sum_card(result)],
        "gallery": _gallery(result),
        "table": [_row(s, result) for s in result["schemes"]],
        "frontiers": [_frontier(result), *_noisy_frontier(result)],
        "attacks_text": (
            "Dot: the attack's success. Bar: 95 % interval. Dashed: what guessing gives. An attack counts "
            "only if it wins where it must (its control); thresholds were fixed before the runs."
        ),
        "attacks": _attacks(result),
        "sums": _sums(result),
        "recognition": _recognition(result),
        "guarantees": [{"name": s["name"], "text": s["guarantee"]} for s in result["schemes"]],
        "limits": LIMITS,
        "facts": _facts(result),
    }


LIMITS = (
    "Attacks here read what a curious server receives. A server that lies, and devices that work with it, "
    "are the subject of further audits (SECURITY.md).",
    "The sum and the trained model are visible to all; only differential privacy bounds what they tell.",
    "Attacks are tried in their strongest form: one full-batch step on few clips, without dropout, on a "
    "fresh model. Longer local training leaks less exactly, but that is no protection.",
    "STSTNet has one small fully connected layer, which happens to make some published attacks harder. That "
    "is luck of the architecture, not protection.",
)


def _lead(result: Result) -> str:
    data = result["data"]
    many = len(result["schemes"])
    return (
        f"{data['persons']} persons with {data['clips']} clips train one recogniser of facial "
        "micro-expressions together. Clips stay on each participant's device; after each step the device "
        "sends an update to a server. This page tries to get the clips back out of those updates, for "
        f"{many} {'way' if many == 1 else 'ways'} of sending them."
    )


def _attack(scheme: Result, name: str) -> Result:
    found: Result = next(a for a in scheme["leakage"] if a["id"] == name)
    return found


def _bare(result: Result) -> list[Result]:
    """The mechanisms whose single messages were attacked; noise on top does not change how those look."""
    return [s for s in result["schemes"] if s["mechanism"]["dp"] == "none"]


def _rebuild_card(result: Result) -> dict[str, Any]:
    items = []
    for s in _bare(result):
        a = _attack(s, "A24")
        hit, luck = words.share(a["score"], a["n"]), a["chance"] * a["n"]
        by_luck = f"by luck {luck:.0f}" if luck >= 1 else "by luck less than 1"
        verdict, tone = {
            "broken": ("Yes", "bad"),
            "protected": ("No", "good"),
            "underpowered": ("Cannot tell", "warn"),
            "control-failed": ("Test invalid", "warn"),
        }[a["verdict"]]
        text = f"{hit} participants picked out by the image rebuilt from their message ({by_luck})"
        seen = f"; from {a['mde'] * a['n']:.0f} on we would have noticed" if verdict == "No" else ""
        text += f"{seen}."
        items.append({"name": s["name"], "verdict": verdict, "tone": tone, "text": text})
    return {"question": "Can the server rebuild a participant's face movement?", "items": items}


def _recognition_card(result: Result) -> dict[str, Any]:
    items = []
    for s in result["schemes"]:
        r = s["recognition"]
        low, high = r["ci95"]["uf1"]
        text = f"Score (UF1, 1 is perfect) {r['uf1']:.2f}, plausibly between {low:.2f} and {high:.2f}."
        if s["name"] == "plain":
            verdict, tone = "Reference", ""
        elif s["mechanism"]["dp"] != "none":
            verdict, tone = "Yes", "warn"
            text += " Noise is added on purpose: it bounds what the sum and the model tell."
        elif r["same_as_plain"] is None:
            verdict, tone = "Not compared", ""
        elif r["same_as_plain"]:
            verdict, tone, text = "No", "good", "Every prediction is the same, to the last bit."
        else:
            verdict, tone = "Yes", "warn"
        items.append({"name": s["name"], "verdict": verdict, "tone": tone, "text": text})
    return {"question": "Does hiding the updates change the recognition?", "items": items}


def _cost_card(result: Result) -> dict[str, Any]:
    items = []
    base = next((s["cost"] for s in result["schemes"] if s["name"] == "plain"), None)
    for s in result["schemes"]:
        c = s["cost"]
        times = c["uplink_bytes_per_client"] / base["uplink_bytes_per_client"] if base else 1.0
        text = (
            f"Each device sends this much in a round; adding up {c['clients']} devices takes "
            f"{words.duration(c['aggregation_seconds'])} here"
            + (f"; {times:.1f} times the bytes of plain." if base and s["name"] != "plain" else ".")
        )
        size = words.size(c["uplink_bytes_per_client"])
        items.append({"name": s["name"], "verdict": size, "tone": "", "text": text})
    return {"question": "What does it cost?", "items": items}


def _sum_card(result: Result) -> dict[str, Any]:
    curve = next((c for c in result["sums"] if c["id"] == "A25-sum"), None)
    items = []
    for p in curve["points"] if curve else []:
        verdict, tone = _sum_verdict(p)
        right = f"{100 * p['score']:.0f} of 100"
        text = f"A clip that took part is told from one that did not in {right} pairs (guessing: 50)."
        items.append({"name": f"{p['cohort']} devices", "verdict": verdict, "tone": tone, "text": text})
    return {"question": "What still shows in the sum, however well it is hidden?", "items": items[:4]}


def _sum_verdict(point: Result) -> tuple[str, str]:
    """Membership from the sum, by its interval: near certain, visible, or not shown."""
    if point["ci95"][0] > 0.9:
        return "nearly all", "bad"
    if point["ci95"][0] > point["chance"]:
        return "some", "warn"
    return "not shown", ""


def _gallery(result: Result) -> dict[str, Any]:
    pictures = result["pictures"]
    rows = [
        {
            "title": "What happened on the participants' faces (never sent)",
            "verdict": "",
            "tone": "",
            "note": "Colour: direction of the movement; brightness: its strength. "
            f"Expressions, left to right: {', '.join(p['label'] for p in pictures['truth'])}.",
            "images": [{"alt": f"true movement, {p['label']}", "uri": p["uri"]} for p in pictures["truth"]],
        }
    ]
    for s in _bare(result):
        word, tone = words.VERDICTS[_attack(s, "A24")["verdict"]]
        uris = pictures[s["name"]]
        images = [{"alt": f"rebuilt under {s['name']}", "uri": u} for u in uris]
        title = f"What the server rebuilds under {s['name']}"
        rows.append({"title": title, "verdict": word, "tone": tone, "note": "", "images": images})
    text = (
        "Each column is one participant: above the true movement map of a clip, below what an attacker makes "
        "of that participant's message. The columns are the first participants, not the best."
    )
    return {"columns": max(1, len(pictures["truth"])), "rows": rows, "text": text}


def _row(s: Result, result: Result) -> dict[str, Any]:
    r, c, same = s["recognition"], s["cost"], None
    if s["name"] != "plain" and r["same_as_plain"] is not None:
        same = {"text": "same as plain", "tone": "good"} if r["same_as_plain"] else None
    attacks = []
    for a in s["leakage"]:
        word, tone = words.verdict(a["id"], a["verdict"])
        attacks.append({"title": SHORT.get(a["id"], a["title"]), "verdict": word, "tone": tone})
    low, high = r["ci95"]["uf1"]
    return {
        "name": s["name"],
        "what": s["what"],
        "trust": s["trust"],
        "recognition": f"{r['uf1']:.3f} ({low:.2f} to {high:.2f})",
        "same": same,
        "attacks": attacks,
        "bytes": words.size(c["uplink_bytes_per_client"]),
        "seconds": words.duration(c["aggregation_seconds"]),
    }


SHORT = {
    "A24": "rebuild a clip:",
    "A25": "recognise a known clip:",
    "A26": "count emotions:",
    "A20": "count clips:",
    "A17": "alter a message:",
}


def _frontier(result: Result) -> dict[str, Any]:
    points = []
    for s in _bare(result):
        a, r = _attack(s, "A24"), s["recognition"]
        tone = words.VERDICTS[a["verdict"]][1]
        points.append(
            svg.Point(s["name"], a["score"], tuple(a["ci95"]), r["uf1"], tuple(r["ci95"]["uf1"]), tone)
        )
    return {
        "title": "Leakage of one message against recognition",
        "svg": svg.frontier(
            points, "share of participants picked out by a rebuilt clip", "recognition (UF1)"
        ),
        "text": "Further up recognises better, further left leaks less. Lines are 95 % intervals. Mechanisms "
        "with equal figures lie on one point.",
    }


def _noisy_frontier(result: Result) -> list[dict[str, Any]]:
    """Membership in the published sum against recognition, with and without noise; empty without noise."""
    if not result["noisy_sums"]:
        return []
    scores = {s["name"]: s["recognition"] for s in result["schemes"]}
    exact, points = result["schemes"][0]["recognition"], []
    for p in result["noisy_sums"]:
        r, leaks = scores.get(p["name"], exact), p["ci95"][0] > p["chance"]
        figure = (p["score"], tuple(p["ci95"]), r["uf1"], tuple(r["ci95"]["uf1"]))
        points.append(svg.Point(p["name"], *figure, "warn" if leaks else "good"))
    first = result["noisy_sums"][0]
    return [
        {
            "title": "Leakage of the sum against recognition: what differential privacy buys",
            "svg": svg.frontier(
                points, "AUC: a clip in the sum told from one outside", "recognition (UF1)", (0.4, 1.0)
            ),
            "text": "Every exact mechanism publishes the same sum, so all of them are one point here. Noise "
            f"moves it. {first['cohort']} devices, {first['n']} {first['unit']}; an AUC of 0.5 is guessing. "
            "The attack is one attack: the guarantee of a mechanism is its epsilon, not this figure.",
        }
    ]


def _attacks(result: Result) -> list[dict[str, Any]]:
    from merveil.attacks.registry import get

    found = []
    for first in _bare(result)[0]["leakage"]:
        attack = get(first["id"])
        rows = [_attack_row(s["name"], _attack(s, first["id"])) for s in _bare(result)]
        control = first["control"]
        found.append(
            {
                "id": first["id"],
                "title": first["title"],
                "plain_words": attack.plain_words,
                "statistic": first["statistic"],
                "adversary": f"{first['adversary']['name']}; knows {first['adversary']['knows']}",
                "source": attack.source,
                "rows": rows,
                "note": f"Control ({control['scheme']}): {_figure(control)}.",
                "quality": _quality(result) if first["id"] == "A24" else [],
            }
        )
    return found


def _attack_row(name: str, a: Result) -> dict[str, Any]:
    word, tone = words.verdict(a["id"], a["verdict"])
    text = f"{_figure(a)}; guessing {a['chance']:.3f}; {a['n']} {a['unit']}"
    if a["verdict"] == "protected":
        text += f"; a success from {a['mde']:.3f} on would have been seen"
    figure = svg.whisker(
        a["score"], tuple(a["ci95"]), a["chance"], (0.0, 1.0), tone, f"{name}: {a['score']:.3f}"
    )
    return {"name": name, "svg": figure, "verdict": word, "tone": tone, "text": text}


def _figure(a: Result) -> str:
    return f"{a['score']:.3f} ({a['ci95'][0]:.3f} to {a['ci95'][1]:.3f})"


def _correlation(value: float) -> str:
    """Two digits, and no minus before zero."""
    return f"{round(value, 2) + 0.0:.2f}"


def _quality(result: Result) -> list[dict[str, str]]:
    """For the inversion: image measures by scheme, beside the best guess without any message."""
    rows = []
    for s in _bare(result):
        d = _attack(s, "A24")["details"]
        epe = d.get("relative_endpoint_error")
        rows.append(
            {
                "name": s["name"],
                "ncc": _correlation(d["ncc"]),
                "null": _correlation(d["ncc_best_null"]),
                "gain": f"{d['ncc_gain']:+.2f} ({d['ncc_gain_low']:+.2f} to {d['ncc_gain_high']:+.2f})",
                "psnr": f"{d['psnr_db']:.1f} dB",
                "ssim": f"{d['ssim']:.2f}",
                "epe": "" if epe is None else f"{epe:.2f}",
            }
        )
    return rows


def _sums(result: Result) -> dict[str, Any] | None:
    """Attacks on the sum by cohort; the scale starts at guessing."""
    groups = []
    for curve in result["sums"]:
        top = 1.0 if curve["id"] == "A25-sum" else 0.5
        rows = [_sum_row(p, (p["chance"], top), curve["title"]) for p in curve["points"]]
        statistic = curve["points"][0]["statistic"] if curve["points"] else ""
        groups.append({"title": curve["plain_words"], "about": f"{curve['id']} · {statistic}", "rows": rows})
    text = (
        "Every mechanism here publishes the same sum, and everyone may read it. In small groups it shows who "
        "took part and which expressions occurred, whatever hides the single messages. Larger groups help; "
        "differential privacy is the only thing that bounds it."
    )
    return {"text": text, "groups": [g for g in groups if g["rows"]]} if groups else None


def _sum_row(p: Result, scale: tuple[float, float], title: str) -> dict[str, Any]:
    leaks = p["ci95"][0] > p["chance"]
    return {
        "name": f"{p['cohort']} devices",
        "svg": svg.whisker(
            p["score"], tuple(p["ci95"]), p["chance"], scale, "warn" if leaks else "plain", title
        ),
        "verdict": "leaks" if leaks else "not shown",
        "tone": "warn" if leaks else "",
        "text": f"{_figure(p)}; guessing {p['chance']:.2f}; {p['n']} {p['unit']}",
    }


def _recognition(result: Result) -> dict[str, Any]:
    rows = [_score_row(s["name"], s["recognition"]) for s in result["schemes"]]
    spoken = {
        "majority": "baseline: always the most frequent class",
        "kernel_ridge": "baseline: kernel ridge",
    }
    rows += [_score_row(spoken.get(n, n), b) for n, b in result["baselines"].items()]
    text = (
        "UF1 and UAR weigh every expression class alike; counts are pooled over all held-out people before "
        f"the score is taken, and intervals are over persons. {result['disclosure']}"
    )
    return {"rows": rows, "text": text}


def _score_row(name: str, r: Result) -> dict[str, str]:
    ci: Mapping[str, Sequence[float]] = r.get("ci95", {})
    spread = {k: f"{ci[k][0]:.3f} to {ci[k][1]:.3f}" if k in ci else "" for k in ("uf1", "uar")}
    figures = {k: f"{r[k]:.3f}" for k in ("uf1", "uar", "accuracy")}
    return {"name": name, **figures, "uf1_ci": spread["uf1"], "uar_ci": spread["uar"]}


def _facts(result: Result) -> list[tuple[str, str]]:
    data = result["data"]
    sets = ", ".join(f"{name} ({count} clips)" for name, count in data["datasets"].items())
    pairs = [
        ("Data", f"{sets}; {data['persons']} persons; {data['source']}"),
        ("Data SHA-256", data["sha256"]),
        ("Model", f"{result['model']}, {result['schemes'][0]['recognition']['parameters']} parameters"),
        ("Evaluation", f"{result['protocol']}, people in the test part never train"),
        ("Federation", f"clients: {result['clients']}; {result['rounds']} rounds, fixed before the run"),
        ("Seed", str(result["seed"])),
        ("Versions", ", ".join(f"{k} {v}" for k, v in result["versions"].items())),
        ("Time", words.duration(result["seconds"])),
    ]
    return pairs
