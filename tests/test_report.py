"""The report page: figures, states, escaping, damaged logs; what its charts say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from report_run import dev_line, jsonl, train_line, write_run

from ernie2.config import ConfigError
from ernie2.pages import Series, compact, environment, line_chart, smooth
from ernie2.report import Run, curves_svg, main, page


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """The run of report_run.py."""
    return write_run(tmp_path / "run")


def _cells(text: str, first: str, second: str | None = None) -> list[str]:
    """The texts of the table row that begins with `first` (and `second`)."""
    root = ElementTree.fromstring(text.partition("\n")[2])
    rows = [
        ["".join(cell.itertext()) for cell in row] for row in root.iter("{http://www.w3.org/1999/xhtml}tr")
    ]
    return next(row for row in rows if row[0] == first and second in (None, row[1]))


def _facts(text: str) -> dict[str, str]:
    return dict(re.findall("<dt>([^<]*)</dt><dd>([^<]*)</dd>", text))


def test_figures_of_a_finished_run(run_dir: Path) -> None:
    text = page(run_dir)
    assert "● Finished" in text and "synthetic_zh" in text and _facts(text)["Steps"] == "500"
    assert "1.20M" in text.replace("1.2M", "1.20M") and "3:02:00" in text and "1.28e-4" in text
    assert _cells(text, "sentence_distance", "sentence") == [
        "sentence_distance",
        "sentence",
        "● above chance",
        "77.7%",
        "25.0%",
        "3.11",
        "0.500",
        "1.386",
        "500",
    ]
    assert _cells(text, "ir_relevance", "sentence")[2:6] == ["○ at chance", "25.1%", "25.0%", "1.00"]
    assert _facts(text) | {"Tokens a second": "4k", "Padding": "20.0%", "Waiting for data": "1.0%"} == _facts(
        text
    )
    assert "Skipped" not in text


def test_skipped_steps_show_once_there_are_any(tmp_path: Path) -> None:
    lines = [train_line(step, 0, "a", skipped_steps=step // 20) for step in (10, 20, 30, 40)]
    (tmp_path / "train.jsonl").write_text(jsonl(lines))
    text = page(tmp_path)
    assert _facts(text)["Skipped steps"] == "2"


def test_forgetting_is_measured_from_the_end_of_the_own_stage(run_dir: Path) -> None:
    text = page(run_dir).partition("<h2>Forgetting</h2>")[2].partition("</table>")[0]
    for figure in (
        "0.611",
        "0.933",
        "+0.322 (+52.7%)",
        "sentence_reordering 52.7%",
        "▲ forgotten",
        "Stage 2",
        "Loss, end of training",
    ):
        assert figure in text
    assert "ir_relevance" not in text, "its own stage is the last: nothing can be forgotten yet"


def test_stage_table(run_dir: Path) -> None:
    cells = _cells(page(run_dir), "Stage 2")
    assert cells[1] == "knowledge_masking 50%sentence_reordering 50%"
    # 10 log steps x 2 tasks x 8,000 tokens at 4,000 a second
    assert cells[2:] == ["101 – 200", "100", "160k", "0:00:40", "4k", "20.0%", "1.0%"]


def test_pictures_are_valid_xml_and_load_nothing(run_dir: Path) -> None:
    text = page(run_dir)
    root = ElementTree.fromstring(text.partition("\n")[2])
    pictures = [one for one in root.iter("{http://www.w3.org/2000/svg}svg") if one.get("class") == "chart"]
    # nine task heads, forgetting (wide and narrow), learning rate, gradient, throughput
    assert len(pictures) == 2 * 9 + 2 + 3
    plain = text.replace("http://www.w3.org/2000/svg", "").replace("http://www.w3.org/1999/xhtml", "")
    plain = plain.replace("url(#", "").replace('href="#', "")
    assert not any(word in plain for word in ("http", "<script", "url(", "@import", "src=", "href="))
    assert len(text) < 1_000_000
    assert text.count('class="level"') >= 2 * 5, "chance is a dashed line in each task's charts"


def test_standalone_svg(run_dir: Path) -> None:
    root = ElementTree.fromstring(curves_svg(run_dir))
    titles = [
        one.get("aria-label") for one in root.iter("{http://www.w3.org/2000/svg}svg") if one.get("aria-label")
    ]
    assert titles[1:5] == [
        "knowledge_masking · masked_lm loss",
        "knowledge_masking · masked_lm accuracy",
        "sentence_reordering · sentence loss",
        "sentence_reordering · sentence accuracy",
    ]


def test_text_from_files_is_data(tmp_path: Path) -> None:
    task = "<script>alert(1)</script>&\"'\x00\ud800"
    record = train_line(10, 0, task, losses={"<b>": 1.0}, accuracy={})
    (tmp_path / "train.jsonl").write_text(jsonl([record]))
    (tmp_path / "step_1").mkdir()
    (tmp_path / "step_1" / "recipe.yaml").write_text(
        "name: '</title><img src=x>'\nmodel: {size: <i>big</i>}\n"
    )
    text = page(tmp_path)
    ElementTree.fromstring(text.partition("\n")[2])
    assert "<script" not in text and "<b>h" not in text and "<img" not in text and "<i>big" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;&#34;&#39;\ufffd\ufffd" in text
    ElementTree.fromstring(curves_svg(tmp_path))


def test_crashed_run_with_a_line_cut_off(run_dir: Path) -> None:
    (run_dir / "result.json").unlink()
    with (run_dir / "train.jsonl").open("a") as file:
        file.write('{"step": 510, "sta')
    text = page(run_dir)
    assert "train.jsonl: 1 lines are damaged or hold" in text and "◐ Running" in text
    for name in ("train.jsonl", "eval.jsonl"):
        os.utime(run_dir / name, (1e9, 1e9))
    text = page(run_dir)
    assert "▼ Stopped: no log line for" in text and "Loss, newest evaluation" in text


def test_unreadable_lines_repeats_and_losses_that_are_not_numbers(tmp_path: Path) -> None:
    lines = [
        train_line(10, 0, "a"),
        train_line(20, 0, "a", losses={"masked_lm": float("nan")}),
        train_line(10, 0, "a", lr=0.5),
    ]
    broken = 'half{"step": 1}\n[1]\n{"step": true, "stage": 0, "task": "a"}\n' + "[" * 100_000 + "\n"
    (tmp_path / "train.jsonl").write_text(broken + jsonl(lines))
    run = Run(tmp_path)
    assert [(record["step"], record["lr"]) for record in run.train] == [(10, 0.5), (20, 1e-4)]
    notices = " ".join(run.notices)
    assert "5 lines are damaged or hold numbers that are not finite" in notices
    assert "(the first is line 1)" in notices
    ElementTree.fromstring(page(tmp_path).partition("\n")[2])


def test_without_eval_or_withouttrain_line(run_dir: Path) -> None:
    kept = (run_dir / "eval.jsonl").read_text()
    (run_dir / "eval.jsonl").unlink()
    text = page(run_dir)
    assert "No evaluation is logged yet." in text and "Nothing to compare yet" in text
    (run_dir / "eval.jsonl").write_text(kept)
    (run_dir / "train.jsonl").unlink()
    assert "Learning rate" not in page(run_dir) and "ir_relevance · sentence loss" in page(run_dir)


def test_stage_numbers_follow_the_paper_even_when_logs_count_from_one(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(jsonl([train_line(10, 1, "a"), train_line(20, 2, "a")]))
    assert _cells(page(tmp_path), "Stage 2")[2] == "11 – 20"


def test_command_line(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for arguments, made in (
        ([], run_dir / "report.html"),
        (["--out", str(tmp_path / "p.html")], tmp_path / "p.html"),
        (["--svg", str(tmp_path / "c.svg")], tmp_path / "c.svg"),
    ):
        with pytest.raises(SystemExit) as stop:
            main([str(run_dir), *arguments])
        assert (
            stop.value.code == 0 and made.stat().st_size > 5000 and f"wrote {made}" in capsys.readouterr().out
        )
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("place", ["nowhere", "empty", "young"])
def test_mistakes(tmp_path: Path, place: str, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "young").mkdir()
    (tmp_path / "young" / "train.jsonl").write_text("")
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / place)])
    message = f"{place}: no line of pre-training in train.jsonl or eval.jsonl; give the out_dir"
    assert stop.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / place / "report.html").exists()


def test_folder_of_a_fine_tuning_run(tmp_path: Path) -> None:
    line = {"run": 1, "step": 10, "steps": 20, "lr": 1e-5, "loss": 0.5}
    (tmp_path / "train.jsonl").write_text(jsonl([line]))
    (tmp_path / "metrics.jsonl").write_text(jsonl([{"run": 1, "step": 10, "metrics": {"dev": {}}}]))
    with pytest.raises(ConfigError, match=r"no line of pre-training .*fine-tuning logs in metrics.jsonl"):
        page(tmp_path)


def test_no_paddle() -> None:
    code = "import sys, ernie2.report; sys.exit(any(m.split('.')[0] in ('paddle', 'data_gen') for m in sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[1]).returncode
        == 0
    )


@pytest.mark.parametrize(
    ("accuracy", "chance", "words"),
    [
        (0.10, 0.05, "● above"),
        (0.92, 0.90, "● above"),
        (0.905, 0.90, "◐ barely"),
        (0.336, 0.333, "○ at"),
        (0.25, 0.333, "▼ below"),
        (0.5, 0.0, "● above"),
        (0.0, 0.0, "○ at"),
        (1.0, 1.0, "○ at"),
    ],
)
def test_verdict(accuracy: float, chance: float, words: str) -> None:
    assert words in environment().get_template("parts.html").module.verdict(accuracy, chance)


# ---- charts
# -----------------------------------------------------------------------------------------------------------

STAGES = [(0, 60_000, "Stage 1")]


def texts(*series: Series, title: str = "x", **options: object) -> list[tuple[str, float]]:
    """(text, y) of all that a chart says."""
    root = ElementTree.fromstring(line_chart(STAGES, title, series, **options))
    return [(one.text, float(one.get("y"))) for one in root.iter("{http://www.w3.org/2000/svg}text")]


def test_numbers_for_people() -> None:
    assert [compact(x) for x in (0, 5e-5, 0.001, 0.0123, 4.2, 999.7, 8192, 393_216, 79_999_999, 2.5e9)] == [
        "0",
        "5e-5",
        "1e-3",
        "0.0123",
        "4.20",
        "1k",
        "8.19k",
        "393k",
        "80M",
        "2.5B",
    ]


@pytest.mark.parametrize(
    ("high", "share", "labels"),
    [
        (8.0, False, {"0", "2", "4", "6", "8"}),
        (0.5, True, {"0%", "20%", "40%"}),
        (1e-4, False, {"0", "5e-5", "1e-4"}),
        (43_000, False, {"0", "20k", "40k"}),
    ],
)
def test_scales(high: float, share: bool, labels: set[str]) -> None:
    found = texts(Series("y", [(0, 0.0), (60_000, high)]), share=share)
    assert labels | {"0", "20k", "40k", "60k", "steps", "Stage 1"} <= {text for text, _ in found}


def test_smoothing_keeps_the_level() -> None:
    _, (_, smoothed) = smooth(np.arange(200.0), 1.0 + (-1.0) ** np.arange(200))
    assert np.abs(smoothed - 1.0).max() < 0.35
    assert Series("few", [(1, 3.0), (2, 9.0)], kind="smooth").drawn[1].tolist() == [3.0, 9.0]


def test_a_spike_neither_flattens_nor_lifts_the_curve() -> None:
    points = [(i, 1.0 + 0.1 * (i % 3)) for i in range(400)]
    points[200] = (200, 500.0)
    assert Series("y", points, kind="smooth").drawn[1].max() < 1.2
    found = {text for text, _ in texts(Series("y", points, kind="smooth"))}
    assert "1.2" in found and "500" not in found


def test_long_runs_do_not_make_large_pictures() -> None:
    rng = np.random.default_rng(0)
    points = list(zip(range(0, 60_000), rng.normal(size=60_000)))
    assert len(line_chart(STAGES, "x", [Series("y", points, kind="smooth")])) < 60_000


def test_one_evaluation_still_draws_chance(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(jsonl([train_line(10, 0, "a"), train_line(20, 0, "a")]))
    (tmp_path / "eval.jsonl").write_text(jsonl([dev_line(20, 0, "a", 1.2, 0.9)]))
    levels = re.findall(r'class="level"> <path d="M [\d.]+ [\d.]+ L', page(tmp_path))
    assert len(levels) == 2, "loss and accuracy: a line, not a point"


def test_equal_values_are_a_level_line_and_labels_stay_apart() -> None:
    points = [(x, 0.2 + 1e-16 * (x % 3)) for x in range(60)]
    assert "20%" in {text for text, _ in texts(Series("y", points, kind="smooth"), share=True)}
    found = texts(*(Series(f"curve {i}", [(0, 1.0), (9, 1.0)]) for i in range(8)))
    places = sorted(y for text, y in found if text.startswith("curve"))
    assert len(places) == 8 and min(b - a for a, b in zip(places, places[1:], strict=False)) > 12


def test_chinese_names_markup_and_dollars_are_text() -> None:
    name = "句子<b>排序 $x^2$ & 0.123456"
    assert {f"{name} 1.00", name} <= {
        text for text, _ in texts(Series(name, [(0, 1.0)]), title=name, size=(900, 200))
    }


def test_chart_of_one_point_and_of_constant_values() -> None:
    for points in ([(5, 0.0)], [(0, 3.0), (9, 3.0)], [(0, -1e-9), (1, 1e-9)], [(0, 1e12), (5, 2e12)]):
        for kind in ("line", "smooth", "level"):
            assert texts(Series("y", points, kind=kind))
