"""data_gen.interchange: examples of other formats in and out, exactly; bad lines named; Baidu's real lines
train."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_example

from data_gen import interchange
from data_gen.interchange.__main__ import main
from data_gen.interchange.lines import BadLine, RejectLog, read
from ernie2.shards import LEVELS, Example, ShardReader
from ernie2.tasks import load_tasks
from ernie2.tokenizer import SPECIAL_TOKENS, Vocab

LINE = "1 7 8 9 2 10 11 2;0 0 0 0 0 1 1 1;0 1 2 3 4 5 6 7;-1 0 1 0 -1 0 0 -1;1"


def call(*arguments: object) -> int:
    """Exit code of the command."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return left.value.code


def same(a: Example, b: Example) -> bool:
    fields = [(a.token_ids, b.token_ids), (a.sentence_ids, b.sentence_ids), (a.token_labels, b.token_labels)]
    fields += [((a.span_ids or {}).get(level), (b.span_ids or {}).get(level)) for level in LEVELS]
    return a.sentence_label == b.sentence_label and all(
        x is y is None or x is not None and y is not None and np.array_equal(x, y) for x, y in fields
    )


@pytest.fixture()
def vocab_file(tmp_path: Path) -> Path:
    path = tmp_path / "v.txt"
    order = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"]
    assert sorted(order) == sorted(SPECIAL_TOKENS)
    path.write_text(
        "\n".join([*order, *(f"t{i}" for i in range(50)), "##p0", "##p1"]) + "\n", encoding="utf-8"
    )
    return path


def lines_file(path: Path, count: int, seed: int = 0) -> list[str]:
    """Lines of Baidu's format that differ from each other."""
    rng, lines = np.random.default_rng(seed), []
    for i in range(count):
        size = int(rng.integers(2, 20))
        words = rng.integers(2, size=2 * size)
        words[[0, size]] = 0
        ids = [1, *rng.integers(5, 50, size).tolist(), 2, *rng.integers(5, 50, size).tolist(), 2]
        seg = [-1, *words[:size].tolist(), -1, *words[size:].tolist(), -1]
        rows = (ids, [0] * (size + 2) + [1] * (size + 1), range(len(ids)), seg)
        lines.append(";".join([*(" ".join(map(str, row)) for row in rows), str(i % 2)]))
    text = "".join(line + "\n" for line in lines)
    (gzip.open if path.suffix == ".gz" else open)(path, "wt", encoding="utf-8").write(text)
    return lines


# ---- Baidu's format
# -----------------------------------------------------------------------------------------------


def test_a_line_becomes_an_example_and_back() -> None:
    example = interchange.parse_baidu(LINE)
    assert example.token_ids.tolist() == [1, 7, 8, 9, 2, 10, 11, 2] and example.sentence_label == 1
    assert example.sentence_ids.tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
    assert {tuple(ids.tolist()) for ids in example.span_ids.values()} == {(-1, 0, 0, 1, -1, 2, 3, -1)}
    assert interchange.format_baidu(example) == LINE
    example.span_ids["entity"] = np.array([-1, 0, 0, 0, -1, 1, 1, -1])
    assert interchange.format_baidu(example, "entity", {1: 0}).endswith(";-1 0 1 1 -1 0 1 -1;0")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (LINE.rsplit(";", 1)[0], "not 5 fields"),
        (LINE + ";", "not 5 fields"),
        (LINE.replace("1 7 8", "1 x 8"), "token_ids: not"),
        (LINE.replace("1 7 8", "1 7.5 8"), "token_ids: not"),
        (LINE.replace("1 7 8", "1 8"), "different lengths"),
        (LINE.replace("0 1 2 3 4", "0 1 2 4 3"), "position_ids"),
        (LINE.replace("-1 0 1 0 -1 0", "-1 1 1 0 -1 0"), "no word"),
        (LINE.replace("-1 0 1", "-1 0 2"), "outside -1 to 1"),
        (LINE + " 1", "label is not one number"),
        (";;;;", "label is not"),
        (LINE.replace("1 7 8", "1 99999999999999999999 8"), "token_ids: not"),
    ],
)
def test_a_bad_line_is_named(line: str, reason: str) -> None:
    with pytest.raises(BadLine, match=reason):
        interchange.parse_baidu(line)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_round_trip_of_files_is_exact(
    tmp_path: Path, vocab_file: Path, suffix: str, capsys: pytest.CaptureFixture
) -> None:
    lines = lines_file(tmp_path / f"a.txt{suffix}", 60)
    lines_file(tmp_path / f"b.txt{suffix}", 9, seed=1)
    common = [
        "--to",
        tmp_path / "shards",
        "--vocab",
        vocab_file,
        "--keep-order",
        "--dev",
        tmp_path / f"b.txt{suffix}",
    ]
    assert call("import-baidu", tmp_path / f"a.txt{suffix}", *common, "--task", "sentence_distance") == 0
    assert "60 train and 9 dev examples" in capsys.readouterr().out
    reader = ShardReader(
        tmp_path / "shards/sentence_distance",
        "train",
        load_tasks()["sentence_distance"],
        Vocab.load(vocab_file).digest,
    )
    assert [reader[i].sentence_label for i in range(4)] == [2, 0, 2, 0]
    assert reader.index["statistics"]["labels"] == {"train": [30, 0, 30], "dev": [4, 0, 5]}
    assert reader.index["imported"]["format"] == "baidu" and (tmp_path / "shards/vocab.txt").exists()
    out = tmp_path / f"out/c.txt{suffix}"
    assert call("export-baidu", tmp_path / "shards/sentence_distance", "--to", out) == 0
    text = (gzip.open if suffix else open)(out, "rt", encoding="utf-8").read()
    assert text == "".join(line + "\n" for line in lines)
    first = out.read_bytes()
    assert (
        call("export-baidu", tmp_path / "shards/sentence_distance", "--to", out) == 0
        and out.read_bytes() == first
    )


def test_a_task_without_a_sentence_head_drops_the_label(
    tmp_path: Path, vocab_file: Path, capsys: pytest.CaptureFixture
) -> None:
    lines = lines_file(tmp_path / "a.txt", 300)
    common = ["import-baidu", tmp_path / "a.txt", "--vocab", vocab_file, "--dev-share", "0.1", "--to"]
    assert call(*common, tmp_path / "s", "--task", "knowledge_masking") == 0
    assert "pair label dropped: 300" in capsys.readouterr().out
    splits = [ShardReader(tmp_path / "s/knowledge_masking", split) for split in ("train", "dev")]
    assert len(splits[0]) + len(splits[1]) == 300 and 10 < len(splits[1]) < 60
    made = [
        interchange.format_baidu(reader[i]).rsplit(";", 1)[0] for reader in splits for i in range(len(reader))
    ]
    wanted = [line.rsplit(";", 1)[0] for line in lines]
    assert sorted(made) == sorted(wanted) and made != wanted, "shuffled, but the same lines"
    index = splits[0].index
    assert index["statistics"]["notes"] == {"pair label dropped": 300} and index["imported"]["labels"] is None
    assert call(*common, tmp_path / "t", "--task", "knowledge_masking") == 0
    assert (tmp_path / "t/knowledge_masking/index.json").read_bytes() == (
        tmp_path / "s/knowledge_masking/index.json"
    ).read_bytes()
    assert (
        call(*common, tmp_path / "s", "--task", "ir_relevance") == 2 and "--labels" in capsys.readouterr().err
    )
    assert (
        call(*common, tmp_path / "s", "--task", "capitalization") == 2
        and "token head" in capsys.readouterr().err
    )
    assert call(*common, tmp_path / "s", "--task", "ir_relevance", "--labels", "0=2,1=0") == 0
    labels = ShardReader(tmp_path / "s/ir_relevance", "train").array(0, "sentence_label")
    assert set(labels.tolist()) == {0, 2}
    assert call("export-baidu", tmp_path / "s/ir_relevance", "--to", tmp_path / "x", "--labels", "0=1") == 2
    assert "class 2" in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_bad_lines_are_written_down_and_stop_the_import_when_many(
    tmp_path: Path, vocab_file: Path, capsys: pytest.CaptureFixture
) -> None:
    lines = lines_file(tmp_path / "a.txt", 200)
    lines[3] = lines[3].replace(";", ",", 1)
    lines[7] = "5" + lines[7][1:]
    lines[9] = lines[9].replace("1 ", "1 99 ", 1).replace("0 0", "0 0 0", 1)
    data = "".join(line + "\n" for line in lines).encode() + b"\n\xff\xfe;\n"
    (tmp_path / "a.txt").write_bytes(data)
    common = [
        "import-baidu",
        tmp_path / "a.txt",
        "--to",
        tmp_path / "s",
        "--task",
        "knowledge_masking",
        "--vocab",
        vocab_file,
        "--dev-share",
        "0.1",
    ]
    assert call(*common) == 2
    error = capsys.readouterr().err
    assert "4 of 201" in error and "a.txt:4" in error and "--max-reject-share" in error
    assert not (tmp_path / "s/knowledge_masking").exists() and not list((tmp_path / "s").glob(".import*"))
    assert call(*common, "--max-reject-share", "0.05") == 0
    rows = [
        json.loads(line)
        for line in (tmp_path / "s/knowledge_masking.rejects.jsonl").read_text("utf-8").splitlines()
    ]
    assert {(row["line"], row["reason"]) for row in rows} == {
        (4, "not 5 fields"),
        (8, "does not begin with [CLS] and end with [SEP] of --vocab"),
        (10, "fields of different lengths"),
        (202, "not UTF-8"),
    }
    assert all(row["file"].endswith("a.txt") and row["text"] for row in rows)
    index = ShardReader(tmp_path / "s/knowledge_masking", "train").index
    assert sum(index["statistics"]["rejected"].values()) == 4 and sum(index["samples"].values()) == 197


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--task", "knowledge_maskin"], ["--task", "did you mean"]),
        (["--max-seq-len", "5"], ["more than --max-seq-len 5"]),
        (["--dev-share", "1e-9"], ["no example in the dev split", "--dev"]),
        (["--dev-share", "2"], ["--dev-share"]),
        (["--labels", "a"], ["--labels"]),
        (["--dev", "nothere.gz"], ["--dev nothere.gz", "no such file"]),
        (["--max-reject-share", "7"], ["--max-reject-share"]),
    ],
)
def test_mistakes_are_named(
    tmp_path: Path, vocab_file: Path, arguments: list[str], parts: list[str], capsys: pytest.CaptureFixture
) -> None:
    lines_file(tmp_path / "a.txt", 40)
    common = [
        "import-baidu",
        tmp_path / "a.txt",
        "--to",
        tmp_path / "s",
        "--task",
        "knowledge_masking",
        "--vocab",
        vocab_file,
    ]
    assert call(*common, *arguments) == 2
    error = capsys.readouterr().err
    assert all(part in error for part in parts), error
    assert not (tmp_path / "s/knowledge_masking").exists()


def test_another_vocabulary_and_a_truncated_file(
    tmp_path: Path, vocab_file: Path, capsys: pytest.CaptureFixture
) -> None:
    lines_file(tmp_path / "a.txt.gz", 400)
    common = [
        "--to",
        tmp_path / "s",
        "--task",
        "knowledge_masking",
        "--vocab",
        vocab_file,
        "--dev-share",
        "0.2",
    ]
    (tmp_path / "cut.gz").write_bytes((tmp_path / "a.txt.gz").read_bytes()[:-900])
    assert call("import-baidu", tmp_path / "cut.gz", *common) == 0
    printed = capsys.readouterr().out
    assert "truncated" in printed and "from line" in printed
    other = tmp_path / "w.txt"
    other.write_text(vocab_file.read_text(encoding="utf-8").replace("t49", "other"), encoding="utf-8")
    assert call("import-baidu", tmp_path / "a.txt.gz", *common[:4], "--vocab", other) == 2
    assert "another vocabulary" in capsys.readouterr().err
    (tmp_path / "empty").write_bytes(b"\n\n")
    assert call("import-baidu", tmp_path / "empty", *common) == 2 and "no line" in capsys.readouterr().err


# ---- .jsonl
# -------------------------------------------------------------------------------------------------------


def numbered(example: Example) -> dict[str, np.ndarray]:
    """Spans as data_gen numbers them: none reaches over a [SEP]."""
    made = {}
    for level, ids in example.span_ids.items():
        begins = np.diff(ids, prepend=-2) != 0
        made[level] = np.where(ids < 0, -1, np.cumsum(begins & (ids >= 0)) - 1).astype(np.int16)
    return made


def test_jsonl_round_trip_is_exact_for_every_head(tmp_path: Path, tiny_tasks: dict, tiny_vocab: Path) -> None:
    vocab, rng = Vocab.load(tiny_vocab), np.random.default_rng(0)
    for name, task in tiny_tasks.items():
        for with_tokens in (True, False):
            examples = [tiny_example(task, vocab, rng) for _ in range(40)]
            for example in examples:
                example.span_ids = numbered(example) if task.has_masked_lm else None
            path = tmp_path / f"{name}.jsonl"
            text = "".join(
                interchange.format_jsonl(example, vocab if with_tokens else None) + "\n"
                for example in examples
            )
            path.write_text(text, encoding="utf-8")
            assert (
                call(
                    "import-jsonl",
                    path,
                    "--dev",
                    path,
                    "--to",
                    tmp_path / "s",
                    "--task",
                    name,
                    "--vocab",
                    tiny_vocab,
                    "--keep-order",
                )
                == 0
            )
            reader = ShardReader(tmp_path / "s" / name, "train", task, vocab.digest)
            assert all(same(reader[i], example) for i, example in enumerate(examples)) and len(reader) == 40
            out = tmp_path / "out.jsonl.gz"
            assert (
                call(
                    "export-jsonl",
                    tmp_path / "s" / name,
                    "--to",
                    out,
                    *(() if with_tokens else ("--ids-only",)),
                )
                == 0
            )
            made = [json.loads(line) for line in gzip.open(out, "rt", encoding="utf-8")]
            assert made == [json.loads(line) for line in text.splitlines()]


def test_jsonl_fills_in_what_can_be_left_out(vocab_file: Path) -> None:
    vocab = Vocab.load(vocab_file)
    example = interchange.parse_jsonl(
        '{"tokens": ["[CLS]", "t1", "##p0", "[UNK]", "[SEP]", "t2", "[SEP]"], "_id": 7}', vocab
    )
    assert example.sentence_ids.tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert {tuple(ids.tolist()) for ids in example.span_ids.values()} == {(-1, 0, 0, 1, -1, 2, -1)}
    spans = '{"word": [[1, 2], [2, 4]], "entity": [[1, 4]]}'
    example = interchange.parse_jsonl(f'{{"token_ids": [1, 5, 6, 7, 2], "spans": {spans}}}', vocab)
    assert [example.span_ids[level].tolist() for level in LEVELS] == [[-1, 0, 1, 1, -1]] * 2 + [
        [-1, 0, 0, 0, -1]
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[1]", "Input should be an object"),
        ("{", "not JSON"),
        ('{"token_ids": [' + "1" * 5000 + "]}", "not JSON"),
        ('{"token_ids": [1, 5, 2], "label": 1}', "unknown key 'label'"),
        ('{"sentence_ids": [0]}', "neither tokens"),
        ('{"tokens": ["[CLS]", "x", "[SEP]"]}', "not in the vocabulary"),
        ('{"tokens": ["[CLS]", "t1", "[SEP]"], "token_ids": [1, 5, 2]}', "do not agree"),
        ('{"tokens": "abc"}', "tokens: Input should be a valid"),
        ('{"token_ids": [1, true, 2]}', "token_ids: Input should be a valid integer"),
        ('{"token_ids": [1, 99, 2]}', "outside the vocabulary"),
        ('{"token_ids": [1, 5, 2], "spans": {"phrase": [[1, 2]]}}', "the level word is missing"),
        ('{"token_ids": [1, 5, 2], "spans": {"word": [[1, 1]]}}', "empty"),
        ('{"token_ids": [1, 5, 6, 2], "spans": {"word": [[1, 3], [2, 3]]}}', "overlap"),
        ('{"token_ids": [1, 5, 2], "spans": {"word": [[1, 9]]}}', "beyond"),
        ('{"token_ids": [1, 5, 2], "spans": {"word": [1]}}', "spans: "),
        ('{"token_ids": [1, 5, 2], "sentence_label": "1"}', "sentence_label"),
    ],
)
def test_a_bad_object_is_named(vocab_file: Path, line: str, reason: str) -> None:
    with pytest.raises(BadLine, match=reason):
        interchange.parse_jsonl(line, Vocab.load(vocab_file))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_on_any_machine(tmp_path: Path, end: str) -> None:
    (tmp_path / "a.tsv").write_bytes(end.join(["a", "", "b", ""]).encode())
    lines = read([tmp_path / "a.tsv"], RejectLog(tmp_path / "r", 0.5))
    assert [(line.number, line.text) for line in lines] == [(1, "a"), (3, "b")]
