"""data_gen.interchange: marked sentences, click logs and graded relevance to the TSV files a recipe names."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from data_gen.generators import connectives
from data_gen.interchange import lines as lines_module
from data_gen.interchange.__main__ import main


def call(*arguments: object) -> int:
    """Exit code of the command."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return left.value.code


def table(path: Path) -> list[list[str]]:
    opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")
    with opened as file:
        return [line.rstrip("\n").split("\t") for line in file]


def rejected(path: Path) -> list[tuple[int, str]]:
    lines = Path(f"{path}.rejects.jsonl").read_text("utf-8").splitlines()
    return sorted((row["line"], row["reason"]) for row in map(json.loads, lines))


# ---- sentences with their connective
# ------------------------------------------------------------------------------

PAIRS = [
    ("He  left  .", "It  rained  .", "as_a_result,", "as a result"),
    ("A b.", "C d.", "however", "however"),
    ("E f.", "G h.", "[no-conn]", "[no-conn]"),
]


def write_tsv(path: Path) -> None:
    rows = [
        "sentence1\tsentence2\tlabel\tidx",
        *(f"{a}\t{b}\t{c}\t{i}" for i, (a, b, c, _) in enumerate(PAIRS)),
    ]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def write_csv(path: Path) -> None:
    rows = ["s1,s2,y", *(f'"{a}","{b}","{c}"' for a, b, c, _ in PAIRS)]
    path.write_text("\r\n".join(rows) + "\r\n", encoding="utf-8-sig")


def write_jsonl(path: Path) -> None:
    numbers = [connectives.class_names("en").index(name) for *_, name in PAIRS]
    text = "".join(
        json.dumps({"sentence1": a, "sentence2": b, "label": n}) + "\n"
        for (a, b, *_), n in zip(PAIRS, numbers, strict=True)
    )
    path.write_text(text, encoding="utf-8")


def write_parquet(path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    numbers = [connectives.class_names("en").index(name) for *_, name in PAIRS]
    parquet.write_table(
        pyarrow.table(
            {
                "sentence1": [row[0] for row in PAIRS],
                "sentence2": [row[1] for row in PAIRS],
                "label": numbers,
                "idx": [0, 1, 2],
            }
        ),
        path,
    )


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("train.tsv", write_tsv),
        ("train.csv", write_csv),
        ("train.jsonl", write_jsonl),
        ("train-00000-of-00001.parquet", write_parquet),
    ],
)
def test_every_form_of_discovery_is_read(
    tmp_path: Path, name: str, write: object, capsys: pytest.CaptureFixture
) -> None:
    write(tmp_path / name)
    assert call("import-discovery", tmp_path / name, "--to", tmp_path / "out.tsv") == 0
    wanted = [[" ".join(a.split()), " ".join(b.split()), marker] for a, b, _, marker in PAIRS]
    assert table(tmp_path / "out.tsv") == [["sentence1", "sentence2", "marker"], *wanted]
    assert "3 pairs of 3 connectives" in capsys.readouterr().out
    assert not (tmp_path / "out.tsv.rejects.jsonl").exists()


def test_one_s_own_pairs_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "mine.tsv"
    rows = [
        "他走了。\t天黑了。\t因此，",
        "他走了。\t天黑了。\t哈哈",
        "他走了。\t\t但是",
        "一行",
        "他来了。\t天亮了。\t所以",
    ]
    path.write_text("\n".join(rows), encoding="utf-8")
    common = ["import-discovery", path, "--to", tmp_path / "out.tsv.gz", "--language", "zh"]
    assert call(*common) == 2 and "expected sentence1,sentence2,marker" in capsys.readouterr().err
    common += ["--columns", "sentence1,sentence2,marker"]
    assert call(*common) == 2
    assert "3 of 5" in capsys.readouterr().err and not (tmp_path / "out.tsv.gz").exists()
    assert call(*common, "--max-reject-share", "0.6") == 0
    assert table(tmp_path / "out.tsv.gz")[1:] == [
        ["他走了。", "天黑了。", "因此"],
        ["他来了。", "天亮了。", "所以"],
    ]
    assert rejected(tmp_path / "out.tsv.gz") == [
        (2, "unknown_marker"),
        (3, "empty_sentence"),
        (4, "wrong_columns"),
    ]


@pytest.mark.parametrize(("suffix", "tab"), [("tsv", "\t"), ("csv", ",")])
def test_a_header_is_no_data_even_when_columns_are_given(
    tmp_path: Path, suffix: str, tab: str, capsys: pytest.CaptureFixture
) -> None:
    rows = [
        ["Sentence1", "sentence2 ", "marker"],
        ["A b.", "C d.", "however"],
        ["sentence1", "sentence2", "marker"],
    ]
    for name in ("a", "b"):
        (tmp_path / f"{name}.{suffix}").write_text(
            "".join(tab.join(row) + "\n" for row in rows), encoding="utf-8"
        )
    common = [
        "import-discovery",
        tmp_path / f"?.{suffix}",
        "--to",
        tmp_path / "out.tsv",
        "--columns",
        "sentence1,sentence2,marker",
    ]
    assert call(*common, "--max-reject-share", "0.4") == 2
    assert "2 of 4 lines" in capsys.readouterr().err, "a header elsewhere is a row"
    assert call(*common, "--max-reject-share", "0.5") == 0
    assert (
        rejected(tmp_path / "out.tsv") == [(3, "unknown_marker")] * 2
        and len(table(tmp_path / "out.tsv")) == 3
    )


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("a.tsv", "x\ty\n1\t2\n", "expected sentence1"),
        ("a.tsv", "", "no line"),
        ("a.jsonl", "[1]\n", "1 of 1"),
        ("a.jsonl", '{"s1": "a", "s2": "b"}\n', "expected sentence1,sentence2,marker"),
        ("a.parquet", "x", "damaged parquet"),
    ],
)
def test_files_that_are_no_pairs(
    tmp_path: Path, name: str, text: str, part: str, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert call("import-discovery", tmp_path / name, "--to", tmp_path / "out.tsv") == 2
    assert part in capsys.readouterr().err and not (tmp_path / "out.tsv").exists()


# ---- click logs
# ---------------------------------------------------------------------------------------------------

LOG = """query\ttitle\tclicks\tshows\tday
a\tA1\t0\t3\t1
b\tB1\t1\t10\t1
a\tA1\t2\t5\t2
a  \t A2\t0\t1\t2
b\tB2\t0\t2\t1
b\tB1\t0\t10\t2
c\tC1\t3\t2\t1
c\t\t0\t1\t1
c\tC2\tx\t1\t1
c\tC3\t0\t0\t1
"""


@pytest.mark.parametrize(
    ("options", "strong", "weak", "dropped"),
    [
        ([], {"A1", "B1"}, {"A2", "B2"}, 0),
        (["--min-rate", "0.1"], {"A1"}, {"A2", "B2"}, 1),
        (["--min-shows", "2"], {"A1", "B1"}, {"B2"}, 1),
    ],
)
def test_click_logs_are_added_up(
    tmp_path: Path,
    options: list[str],
    strong: set[str],
    weak: set[str],
    dropped: int,
    capsys: pytest.CaptureFixture,
) -> None:
    (tmp_path / "log.tsv").write_text(LOG, encoding="utf-8")
    assert (
        call(
            "import-clicks",
            tmp_path / "log.tsv",
            "--to",
            tmp_path / "out.tsv",
            "--max-reject-share",
            "0.5",
            *options,
        )
        == 0
    )
    rows = table(tmp_path / "out.tsv")
    assert rows[0] == ["query", "title", "clicked"] and len(rows) == 1 + len(strong) + len(weak)
    assert {row[1] for row in rows[1:] if row[2] == "1"} == strong and {
        row[1] for row in rows[1:] if row[2] == "0"
    } == weak
    assert all(row[0].upper() == row[1][0] for row in rows[1:])
    assert f", {dropped} dropped\n" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.scratch"))
    assert rejected(tmp_path / "out.tsv") == [
        (8, "shown less often than clicked, or never"),
        (9, "empty_title"),
        (10, "count that is no whole number"),
        (11, "shown less often than clicked, or never"),
    ]


def test_rows_of_clicked_and_not(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "log.tsv.gz").write_bytes(gzip.compress(b"q\tA\t0\nq\tA\t1\nq\tB\t0\nq\tC\tx\n"))
    common = ["import-clicks", tmp_path / "log.tsv.gz", "--to", tmp_path / "out.tsv"]
    assert call(*common) == 2 and "--columns" in capsys.readouterr().err
    common += ["--columns", "query,title,clicked", "--max-reject-share", "0.3"]
    assert call(*common) == 0
    assert table(tmp_path / "out.tsv")[1:] == [["q", "A", "1"], ["q", "B", "0"]]
    assert rejected(tmp_path / "out.tsv") == [(4, "count that is no whole number")]
    (tmp_path / "head.tsv").write_text("query\tTitle\tclicked\na\tA1\t1\n", encoding="utf-8")
    assert (
        call(
            "import-clicks",
            tmp_path / "head.tsv",
            "--to",
            tmp_path / "o.tsv",
            "--columns",
            "query,title,clicked",
        )
        == 0
    )
    assert (
        table(tmp_path / "o.tsv")[1:] == [["a", "A1", "1"]]
        and not (tmp_path / "o.tsv.rejects.jsonl").exists()
    )
    assert (
        call(*common, "--min-rate", "0.9", "--min-shows", "9") == 2
        and "no pair is left" in capsys.readouterr().err
    )
    assert call(*common, "--min-rate", "9") == 2


# ---- graded relevance
# ---------------------------------------------------------------------------------------------


@pytest.fixture()
def graded(tmp_path: Path) -> list[object]:
    """T2Ranking's three files; the first with, the others without a header."""
    (tmp_path / "qrels.tsv").write_text(
        "qid\t-\tpid\trel\n7\t0\t100\t3\n7\t0\t102\t2\n7\t0\t103\t1\n7\t0\t104\t0\n9\t0\t100\t1\n9\t0\t999\t2\n8\t0\t100\t2\n"
        "9\t0\t105\n9\t0\t105\t4\n",
        encoding="utf-8",
    )
    (tmp_path / "queries.tsv").write_text("7\t问  题 七\n9\t问题九\n11\t没有用\n", encoding="utf-8")
    with gzip.open(tmp_path / "collection.tsv.gz", "wt", encoding="utf-8") as file:
        for pid in range(90, 110):
            file.write(f'{pid}\t"段落" {pid} ' + "长" * 600 + "\n")
    return [
        "import-t2ranking",
        "--qrels",
        tmp_path / "qrels.tsv",
        "--queries",
        tmp_path / "queries.tsv",
        "--collection",
        tmp_path / "collection.tsv.gz",
        "--to",
        tmp_path / "out.tsv",
    ]


def test_graded_relevance_is_joined(
    graded: list[object], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert call(*graded) == 2 and "3 of 9" in capsys.readouterr().err
    assert call(*graded, "--max-reject-share", "0.5", "--max-chars", "10") == 0
    assert table(tmp_path / "out.tsv") == [
        ["query", "title", "relevance"],
        ["问 题 七", '"段落" 100 长', "2"],
        ["问 题 七", '"段落" 102 长', "2"],
        ["问 题 七", '"段落" 103 长', "1"],
        ["问题九", '"段落" 100 长', "1"],
    ]
    assert "2 strong and 2 weak pairs" in capsys.readouterr().out
    assert sorted(rejected(tmp_path / "out.tsv")) == [
        (7, "passage not in the collection"),
        (8, "query not in the queries"),
        (9, "not qid, 0, pid, grade"),
    ]
    assert not list(tmp_path.glob("*.scratch"))


def test_grades_can_be_said(graded: list[object], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert call(*graded, "--max-reject-share", "0.5", "--grades", "4=2,3=2,2=1") == 0
    assert [row[2] for row in table(tmp_path / "out.tsv")[1:]] == ["2", "1", "2"]
    assert call(*graded, "--grades", "3=good") == 2 and "--grades" in capsys.readouterr().err


# ---- shuffling
# ----------------------------------------------------------------------------------------------------


def test_shuffled_lines_are_the_same_lines_in_another_order(tmp_path: Path) -> None:
    lines = [lines_module.Line(tmp_path / f"f {i % 3}", i, f"text {i} ；", i % 5 == 0) for i in range(1, 500)]
    made = list(lines_module.shuffled(iter(lines), 3, tmp_path / "parts"))
    assert made != lines and sorted(made, key=lambda line: line.number) == lines
    assert made == list(lines_module.shuffled(iter(lines), 3, tmp_path / "parts"))
    assert made != list(lines_module.shuffled(iter(lines), 4, tmp_path / "parts"))
    place = [made.index(line) for line in lines[:250]]
    assert 150 < sum(place) / len(place) < 350, "the first half lands everywhere"
    assert not list(tmp_path.iterdir())
