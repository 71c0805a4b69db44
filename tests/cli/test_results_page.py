"""docs/results.md as benchmarks/results.py makes it: cells by the command, and what the page says of them."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from merveil.mer.data.archive import load_archive, save_archive
from merveil.mer.data.synthetic import synthetic_archive

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the benchmarks are not in the wheel")


def _saved(path: Path, seed: int) -> None:
    a = synthetic_archive(6, 4, seed)
    save_archive(
        path, x=a.x, y=a.y, dataset=a.dataset, subject=a.subject, clip=a.clip, site=a.site, meta=a.meta
    )


@pytest.fixture(scope="module")
def scripts() -> Any:
    """The three scripts, as running one of them imports the others."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import results
        import results_mix
        import results_page

        yield results, results_page, results_mix
    finally:
        sys.path.remove(str(BENCHMARKS))
        for name in ("results", "results_mix", "results_page"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def made(scripts: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, list[Any]]:
    """An archive of six drawn people, and cells of a few short lines."""
    results, _, _ = scripts
    folder = tmp_path_factory.mktemp("results")
    data = str(folder / "toy.npz")
    _saved(folder / "toy.npz", 1)
    one = results.Row("flow-softmax", seeds=(0,))
    fed = replace(one, mode="federated", clients="subject", scheme="plain")
    rows = [
        one,
        fed,
        replace(fed, protocol="kfold:6", rounds=2),
        replace(fed, protocol="kfold:6", rounds=2, scheme="secagg"),
        replace(fed, dp="central", epsilon=8),
        results.Row("flow-mlp", ("epochs=3", "hidden=4"), seeds=(0, 1)),
        results.Row("kernel-ridge", seeds=(0,)),
    ]
    results.fill(data, folder / "cache", [(row, seed) for row in rows for seed in row.seeds][:-2], 60)
    return data, folder / "cache", rows


def test_cells_that_fail_are_said_and_left_out(
    scripts: Any, made: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    results, _, _ = scripts
    data, cache, _ = made
    wrong = results.Row("flow-mlp", ("hidden=0",), seeds=(0,))
    results.fill(data, cache, [(wrong, 0)], 1)
    assert "exit 2" in capfd.readouterr().out and not (cache / wrong.folder(0) / "result.json").exists()


def test_the_page_holds_what_the_cells_hold(scripts: Any, made: Any, tmp_path: Path) -> None:
    _, page, _ = scripts
    data, cache, rows = made
    for part in ("mer/models", "docs"):
        (tmp_path / part).mkdir(parents=True)
    page.render(data, cache, rows, tmp_path)
    text = (tmp_path / "docs" / "results.md").read_text()
    found = json.loads((tmp_path / "mer" / "models" / "scores.json").read_text())
    one, fed, _, _, noisy, mlp, _ = rows

    def cell(row: Any, seed: int = 0) -> Any:
        return json.loads((cache / row.folder(seed) / "result.json").read_text())

    assert f"| flow-softmax | 75 | central | 1 | **{cell(one)['uf1']:.3f}** |" in text
    assert "6 people and\n24 clips" in text
    # Federated training takes central training's steps.
    assert "| flow-softmax | subject | 1 | +0.000 | +0.000 to +0.000 |" in text
    assert (
        "| flow-softmax | kfold:6 | 2 | secagg | 0 | every probability, to the last bit | +0.0000 |" in text
    )
    loss = cell(noisy)["uf1"] - cell(fed)["uf1"]
    private = next(line for line in text.splitlines() if "client, epsilon 8" in line)
    assert f"**{cell(noisy)['uf1']:.3f}**" in private and f"| {loss:+.3f}, " in private
    # One seed is missing, and so is a whole line; both are named, and the other seed is in the table.
    assert "flow-mlp, epochs 3, hidden 4, central: seeds 1" in text and "kernel-ridge, central: all" in text
    assert f"| flow-mlp, epochs 3, hidden 4 | 2,379 | central | 1 | **{cell(mlp)['uf1']:.3f}** |" in text
    assert [r["model"] for r in found["rows"]].count("flow-softmax") == 2 and len(found["private"]) == 1
    assert found["private"][0]["epsilon"] == 8 and found["data"]["sha256"] == load_archive(data).sha256
    table = text.split("## ")[0]
    assert "kfold" not in table and "epsilon" not in table  # what is no score stands elsewhere


def test_cells_of_other_data_or_other_clips_are_refused(scripts: Any, made: Any, tmp_path: Path) -> None:
    _, page, _ = scripts
    data, cache, rows = made
    _saved(tmp_path / "other.npz", 2)
    with pytest.raises(SystemExit, match="scored on other data"):
        page.render(str(tmp_path / "other.npz"), cache, rows[:1], tmp_path)
    folder = tmp_path / "cell"
    folder.mkdir()
    lines = (cache / rows[0].folder(0) / "predictions.csv").read_text().splitlines()
    (folder / "predictions.csv").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(SystemExit, match="does not hold the archive's clips"):
        page.in_order(load_archive(data), folder)


def test_predictions_are_put_in_the_archive_s_order(scripts: Any, made: Any, tmp_path: Path) -> None:
    _, page, _ = scripts
    data, cache, rows = made
    lines = (cache / rows[0].folder(0) / "predictions.csv").read_text().splitlines()
    (tmp_path / "predictions.csv").write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n")
    archive = load_archive(data)
    for a, b in zip(page.in_order(archive, tmp_path), page.in_order(archive, cache / rows[0].folder(0))):
        assert np.array_equal(a, b)


def test_mixtures_need_a_whole_run_that_agrees(
    scripts: Any, made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, page, mix = scripts
    data, cache, _ = made
    seeds = (0, 1)
    row = results.Row("ensemble", seeds=seeds)
    parts = [
        (results.Row("exact-ridge", seeds=(0,)), 0),
        *((results.Row("flow-mlp", seeds=seeds), s) for s in seeds),
    ]
    results.fill(data, cache, parts, 60)
    monkeypatch.setattr(results, "rows", lambda: [row])
    with pytest.raises(SystemExit, match="no whole run"):
        results.mix(data, cache, seeds)
    results.fill(data, cache, [(row, 0)], 60)
    results.mix(data, cache, seeds)
    made_up = json.loads((cache / row.folder(1) / "result.json").read_text())
    assert made_up["vouched_by_seed"] == 0 and len(made_up["mixed_from"]) == 2
    for part in ("mer/models", "docs"):
        (tmp_path / part).mkdir(parents=True)
    page.render(data, cache, [row], tmp_path)
    assert (
        "seeds 1 are the mean of its parts' probabilities" in (tmp_path / "docs" / "results.md").read_text()
    )
    # A whole run that is not its mixture vouches for none.
    folder = cache / row.folder(0)
    held = (folder / "predictions.csv").read_text()
    (folder / "predictions.csv").write_text((cache / parts[1][0].folder(0) / "predictions.csv").read_text())
    with pytest.raises(SystemExit, match="differs from the mixture"):
        mix.vouched(data, cache, row)
    (folder / "predictions.csv").write_text(held)
