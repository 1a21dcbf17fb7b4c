"""Fine-tuning data formats: what is read, what is repaired, and the one clear message for everything else."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
from conftest import ROOT, SHARED

from ernie2.finetune.readers import find_file, locate_answer, read_split
from ernie2.finetune.tagging import join_tokens
from ernie2.finetune.task import FinetuneTask, load_finetune
from ernie2.schema import build
from ernie2.strict import ConfigError

BASE = {
    "name": "t",
    "files": {"train": "train.tsv", "dev": "dev.tsv"},
    "peak_lr": 1e-3,
    "epochs": 1,
    "batch_size": 2,
}
TAGS = ["B-PER", "I-PER", "B-LOC", "I-LOC", "O"]


def make_task(kind: str = "classification", **keys) -> FinetuneTask:
    labels = {"classification": ["0", "1"], "tagging": TAGS}.get(kind, [])
    metrics = {
        "classification": "accuracy",
        "tagging": "entity_f1",
        "regression": "pearson",
        "span": "cmrc_f1",
    }
    return build(
        FinetuneTask, {**BASE, "kind": kind, "labels": labels, "metrics": [metrics[kind]], **keys}, "test"
    )


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("utf-8"))
    return path


def squad(*questions: dict, context: str = "北京是中国的首都。") -> str:
    return json.dumps(
        {"data": [{"paragraphs": [{"context": context, "qas": list(questions)}]}]}, ensure_ascii=False
    )


def question(qid: str, text: str, start: int) -> dict:
    return {"id": qid, "question": "？", "answers": [{"text": text, "answer_start": start}]}


@pytest.mark.parametrize(
    "header, row",
    [
        ("text_a\ttext_b\tlabel", "甲\t乙\t1"),
        ("label\ttext_b\ttext_a", "1\t乙\t甲"),
        ("id\tlabel\ttext_a\ttext_b", "7\t1\t甲\t乙"),
    ],
)
def test_columns_come_in_any_order(tmp_path, header, row):
    split = read_split(write(tmp_path / "a.tsv", f"{header}\n{row}\n"), "train", make_task())
    sample = split.samples[0]
    assert (sample.text_a, sample.text_b, sample.label) == ("甲", "乙", 1)
    assert sample.where.endswith("a.tsv:2") and split.labelled


def test_lines_end_at_line_feeds_and_fields_at_tabs_only(tmp_path):
    strange = '一\x0b二\x0c三\x1c四\x85五\u2028六\u2029七\r八"九'
    split = read_split(
        write(tmp_path / "a.tsv", f"text_a\tlabel\n{strange}\t0\nb\t1\n"), "train", make_task()
    )
    assert [sample.text_a for sample in split.samples] == [strange, "b"]


def test_lines_that_end_at_carriage_returns(tmp_path):
    split = read_split(
        write(tmp_path / "a.tsv", "\ufeff\ufefftext_a\tlabel\r甲\t0\r乙\t1\r"), "train", make_task()
    )
    assert [(sample.text_a, sample.label) for sample in split.samples] == [("甲", 0), ("乙", 1)]


def test_windows_line_ends_byte_order_mark_gzip_and_blank_lines(tmp_path):
    data = "\ufefftext_a\tlabel\r\n甲\t0\r\n\r\n乙\t1\r\n".encode()
    path = tmp_path / "a.tsv.gz"
    path.write_bytes(gzip.compress(data))
    split = read_split(path, "train", make_task())
    assert [(sample.text_a, sample.label) for sample in split.samples] == [("甲", 0), ("乙", 1)]
    assert split.counts["blank lines"] == 1


def test_a_blank_line_of_a_single_column_is_an_empty_text(tmp_path):
    split = read_split(
        write(tmp_path / "a.tsv", "text_a\n甲\n\n  \r\n乙\n\n\n"), "input", make_task(), "ignored"
    )
    assert [(sample.text_a, sample.line, sample.id) for sample in split.samples] == [
        ("甲", 2, None),
        ("", 3, None),
        ("  ", 4, None),
        ("乙", 5, None),
    ]
    assert split.counts["blank lines"] == 2  # at the end


def test_a_blank_line_of_several_columns_is_answered_and_not_trained_on(tmp_path):
    path = write(tmp_path / "a.tsv", "text_a\tlabel\tid\n甲\t0\tx\n\n乙\t1\ty\n")
    assert [(s.text_a, s.id) for s in read_split(path, "input", make_task(), "ignored").samples] == [
        ("甲", "x"),
        ("", ""),
        ("乙", "y"),
    ]
    split = read_split(path, "dev", make_task())
    assert [sample.line for sample in split.samples] == [2, 4] and split.counts["blank lines"] == 1


@pytest.mark.parametrize(
    "header, keys, labels, message",
    [
        (
            "s1\ts2\tlabel",
            {"columns": {"text_a": "s1", "text_b": "s3"}},
            "required",
            "'s3' in the header, found: s1, s2",
        ),
        ("text_a\tq\tlabel", {"columns": {"qid": "question"}}, "required", "no column 'question'"),
        ("text_a\tq\tlabel", {"columns": {"id": "guid"}}, "optional", "no column 'guid'"),
        ("text_a\tlabel\tgold", {"columns": {"label": "god"}}, "required", "no column 'god'"),
        (
            "text_a\tx\tlabel",
            {"pair": True},
            "required",
            "no column 'text_b' in the header, found: text_a, x, label",
        ),
        ("text_a\tx\tlabel", {"pair": True}, "ignored", "no column 'text_b'"),
        ("text_a\ttext_b\tlabel", {"pair": False}, "ignored", "a second text in column 'text_b'"),
        (
            "text_b\tx\tlabel",
            {"columns": {"text_a": "text_b"}, "pair": True},
            "required",
            "no column 'text_b'",
        ),
        ("text_a,label,x", {}, "required", "no column 'text_a'.*by commas"),
    ],
)
def test_a_column_that_is_mapped_or_needed_must_be_there(tmp_path, header, keys, labels, message):
    path = write(tmp_path / "x.tsv", f"{header}\n甲\t乙\t1\n")
    with pytest.raises(ConfigError, match=rf"x\.tsv:1: .*{message}"):
        read_split(path, "train", make_task(**keys), labels)


@pytest.mark.parametrize(
    "header, row",
    [("text_b\tb\tlabel\ttext_a", "x\t乙\t1\t甲"), ("b\ttext_b\tlabel\ttext_a", "乙\tx\t1\t甲")],
)
def test_a_mapped_column_wins_over_one_of_our_name(tmp_path, header, row):
    path = write(tmp_path / "a.tsv", f"{header}\n{row}\n")
    for labels in ("required", "ignored"):
        (sample,) = read_split(path, "train", make_task(columns={"text_b": "b"}), labels).samples
        assert (sample.text_a, sample.text_b) == ("甲", "乙")


def test_prediction_reads_our_own_names_too_where_training_mapped_others(tmp_path):
    path, task = write(tmp_path / "a.tsv", "text_a\ttext_b\n甲\t乙\n"), make_task(columns={"text_b": "b"})
    assert read_split(path, "input", task, "ignored").samples[0].text_b == "乙"
    with pytest.raises(ConfigError, match="no column 'b'"):
        read_split(path, "test", task, "optional")


def test_a_half_empty_pair_is_counted_in_training_and_refused_in_prediction(tmp_path):
    path = write(tmp_path / "a.tsv", "text_a\ttext_b\tlabel\n甲\t \t0\n甲\t乙\t0\n")
    assert read_split(path, "train", make_task()).counts["pairs with an empty text"] == 1
    with pytest.raises(ConfigError, match=r"a\.tsv:2: an empty text in a pair"):
        read_split(path, "input", make_task(), "ignored")


def test_rows_of_a_label_can_be_left_out(tmp_path):
    path = write(tmp_path / "a.tsv", "text_a\tlabel\n甲\t0\n乙\t-\n丙\t1\n")
    split = read_split(path, "train", make_task(skip_labels=["-"]))
    assert [sample.line for sample in split.samples] == [2, 4] and split.counts[
        "rows left out by skip_labels"
    ] == 1
    assert len(read_split(path, "input", make_task(skip_labels=["-"]), "ignored").samples) == 3
    with pytest.raises(ConfigError, match=r"a\.tsv:3: label '-' .*skip_labels"):
        read_split(path, "train", make_task())


@pytest.mark.parametrize("kind, keys", [("classification", {"labels": ["-1", "0"]}), ("regression", {})])
def test_minus_one_is_a_label_where_the_task_has_it(tmp_path, kind, keys):
    path = write(tmp_path / "a.tsv", "text_a\tlabel\n甲\t-1\n乙\t-1\n")
    split = read_split(path, "test", make_task(kind, **keys), "optional")
    assert split.labelled and split.samples[0].label in (0, -1.0)


@pytest.mark.parametrize(
    "data, message",
    [
        ("text_a\tlabel\n甲\t0\n".encode("utf-16"), ":1: not UTF-8 .*UTF-16"),
        ("text_a\tlabel\na\t0\n".encode("utf-16-le"), ":1: not UTF-8 .byte 0x00"),
        (b"text_a\tlabel\na\t0\nb\0\t0\n", ":3: not UTF-8"),
        (gzip.compress(b"text_a\n", mtime=0), "a gzip file's name ends in .gz"),
    ],
)
def test_what_is_no_text_is_named(tmp_path, data, message):
    (tmp_path / "x.tsv").write_bytes(data)
    with pytest.raises(ConfigError, match=rf"x\.tsv.*{message}"):
        read_split(tmp_path / "x.tsv", "train", make_task())


def test_find_file_takes_the_compressed_twin(tmp_path):
    (tmp_path / "train.tsv.gz").write_bytes(gzip.compress(b"x"))
    assert find_file(tmp_path, "train.tsv") == tmp_path / "train.tsv.gz"
    (tmp_path / "train.tsv").write_bytes(b"x")
    assert find_file(tmp_path, "train.tsv") == tmp_path / "train.tsv"
    assert find_file(tmp_path, "dev.tsv") is None


def test_aliases_qid_and_column_names(tmp_path):
    task = make_task(
        labels=["no", "yes"], label_aliases={"contradictory": "no"}, columns={"text_a": "sentence"}
    )
    path = write(tmp_path / "a.tsv", "qid\tsentence\tlabel\n3\t甲\tcontradictory\n3\t乙\tyes\n")
    assert [(s.qid, s.text_a, s.label) for s in read_split(path, "train", task).samples] == [
        ("3", "甲", 0),
        ("3", "乙", 1),
    ]


def test_regression_labels_are_numbers(tmp_path):
    task = make_task("regression")
    path = write(tmp_path / "a.tsv", "text_a\tlabel\n甲\t4.200\n")
    assert read_split(path, "train", task).samples[0].label == 4.2
    with pytest.raises(ConfigError, match=r"b\.tsv:2: label 'nan' is not a number"):
        read_split(write(tmp_path / "b.tsv", "text_a\tlabel\n甲\tnan\n"), "train", task)


@pytest.mark.parametrize(
    "text, message",
    [
        ("text_a\tlabel\n甲\t0\n乙\t2\n", r"x\.tsv:3: label '2' is not one of the task's labels"),
        ("text\tlabel\n甲\t0\n", r"x\.tsv:1: no column 'text_a' in the header, found: text, label"),
        ("text_a\n甲\n", r"x\.tsv:1: no column 'label'"),
        ("text_a\tlabel\n甲\t0\t1\n", r"x\.tsv:2: found 3 fields, expected 2"),
        ("text_a\ttext_a\tlabel\n", r"x\.tsv:1: a column name comes twice"),
        ("text_a\tlabel\n", r"x\.tsv: no samples"),
        ("", r"x\.tsv:1: no column 'text_a'"),
    ],
)
def test_mistakes_name_file_and_line(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        read_split(write(tmp_path / "x.tsv", text), "train", make_task())


def test_bytes_that_are_not_utf8_name_the_line(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_bytes("text_a\tlabel\n甲\t0\n".encode() + "乙\t1\n".encode("gb18030"))
    with pytest.raises(ConfigError, match=r"x\.tsv:3: not UTF-8"):
        read_split(path, "train", make_task())


def test_damaged_gzip_is_a_clear_message(tmp_path):
    path = tmp_path / "x.tsv.gz"
    path.write_bytes(gzip.compress(b"text_a\tlabel\n" * 50)[:-12])
    with pytest.raises(ConfigError, match=r"x\.tsv\.gz: cannot be read"):
        read_split(path, "train", make_task())


def test_a_test_split_may_have_no_labels(tmp_path):
    minus = write(tmp_path / "a.tsv", "text_a\tlabel\n甲\t-1\n乙\t-1\n")
    bare = write(tmp_path / "b.tsv", "text_a\n甲\n")
    for path in (minus, bare):
        split = read_split(path, "test", make_task(), "optional")
        assert not split.labelled and split.samples[0].label is None
    mixed = write(tmp_path / "c.tsv", "text_a\tlabel\n甲\t0\n乙\t-1\n")
    with pytest.raises(ConfigError, match=r"c\.tsv:3: label '-1'"):
        read_split(mixed, "test", make_task(), "optional")
    assert not read_split(mixed, "input", make_task(), "ignored").labelled


@pytest.mark.parametrize(
    "text, label",
    [
        ("张\x02三\x02在\x02北\x02京", "B-PER\x02I-PER\x02O\x02B-LOC\x02I-LOC"),
        ("张三在北京", "B-PER\x02I-PER\x02O\x02B-LOC\x02I-LOC"),
        ("张三在北京", "B-PER I-PER O B-LOC I-LOC"),
    ],
)
def test_tagging_rows(tmp_path, text, label):
    path = write(tmp_path / "a.tsv", f"text_a\tlabel\n{text}\t{label}\n")
    sample = read_split(path, "train", make_task("tagging")).samples[0]
    assert sample.tokens.text == "张三在北京" and sample.tags == [0, 1, 4, 2, 3]
    assert sample.tokens.spans == [(i, i + 1) for i in range(5)]


def test_tags_for_words_between_spaces_and_for_visible_characters(tmp_path):
    rows = "Li Lei sleeps\tB-PER I-PER O\n张 三\tB-PER I-PER\n"
    split = read_split(write(tmp_path / "a.tsv", f"text_a\tlabel\n{rows}"), "train", make_task("tagging"))
    assert split.samples[0].tokens.spans == [(0, 2), (3, 6), (7, 13)]
    assert split.samples[1].tokens.spans == [(0, 1), (2, 3)]


def test_words_are_joined_with_spaces_and_characters_without():
    assert join_tokens(["EU", "rejects", "German", "call", "."]).text == "EU rejects German call."
    assert join_tokens(list("1998年nba赛")).text == "1998年nba赛"
    tokens = join_tokens(["in", "北", "京", "Bei", "jing"])
    assert [tokens.text[a:b] for a, b in tokens.spans] == ["in", "北", "京", "Bei", "jing"]


@pytest.mark.parametrize(
    "row, message",
    [
        ("张\x02三\tO", r"a\.tsv:2: found 1 tags for 2 tokens"),
        ("张三\tO O O", r"a\.tsv:2: found 3 tags for 2 or 1 tokens"),
        ("张\x02三\tO\x02B-PRE", r"a\.tsv:2: token 2 \('三'\): tag 'B-PRE' is not .*'B-PER'"),
    ],
)
def test_tagging_mistakes_name_line_and_token(tmp_path, row, message):
    with pytest.raises(ConfigError, match=message):
        read_split(write(tmp_path / "a.tsv", f"text_a\tlabel\n{row}\n"), "train", make_task("tagging"))


@pytest.mark.parametrize(
    "tags",
    [
        "B-PER M-PER E-PER O S-LOC",
        "B-PER I-PER L-PER O U-LOC",
        "B_PER I_PER I_PER O B_LOC",
        "B-PER I-PER I-PER O B-LOC",
    ],
)
def test_tags_of_other_schemes_are_read(tmp_path, tags):
    split = read_split(
        write(tmp_path / "a.tsv", f"text_a\tlabel\n王小明在京\t{tags}\n"), "train", make_task("tagging")
    )
    assert split.samples[0].tags == [0, 1, 1, 4, 2]
    with pytest.raises(ConfigError, match=r"a\.tsv:1: no column 'text_a'.*CoNLL.*conll"):
        read_split(write(tmp_path / "a.tsv", "王 B-PER\n\n小 I-PER\n"), "train", make_task("tagging"))
    with pytest.raises(ConfigError, match="every line holds a single token.*CoNLL"):
        text = "text_a\tlabel\n王\tB-PER\n小\tI-PER\n\n在\tO\n"
        read_split(write(tmp_path / "a.tsv", text), "train", make_task("tagging"))


def test_squad_answers_are_repaired_by_search():
    counts = Counter()
    context = "天下大事，分久必合，合久必分。大事"
    assert locate_answer(context, "大事", 2, counts) == (2, 4) and not counts
    assert locate_answer(context, "大事", 13, counts) == (
        15,
        17,
    )  # the occurrence nearest to the offset given
    assert locate_answer(context, "分久必合。", -1, counts) == (
        5,
        9,
    )  # a full stop that the passage does not have
    assert counts == {"answers found by search": 2}
    assert locate_answer(context, "不在文中", -1, counts) is None
    assert counts["answers that are no span of their passage"] == 1


def test_squad_json(tmp_path):
    item = question("q1", "无此", -1)
    item["answers"].append({"text": "中国", "answer_start": 3})
    path = write(tmp_path / "a.json", squad(item, question("q2", "北京", 0)))
    first, second = read_split(path, "dev", make_task("span", max_seq_len=128)).samples
    assert first.references == ["无此", "中国"] and first.answer == (3, 5)
    assert second.answer == (0, 2) and second.context is first.context


@pytest.mark.parametrize(
    "answers, references, span",
    [
        ([{"text": "中国", "answer_start": "3"}], ["中国"], (3, 5)),
        ([{"text": "中国", "answer_start": 3.0}], ["中国"], (3, 5)),
        ({"text": ["中国", "首都"], "answer_start": [3, 6]}, ["中国", "首都"], (3, 5)),
        ({"text": "中国", "answer_start": 3}, ["中国"], (3, 5)),
        (["中国"], ["中国"], (3, 5)),
        ([{"text": "中国", "answer_start": None}], ["中国"], (3, 5)),
        ({"text": [], "answer_start": []}, [], None),
        (None, [], None),
    ],
)
def test_answers_are_read_in_every_clear_shape(tmp_path, answers, references, span):
    path = write(tmp_path / "a.json", squad({"id": "q", "question": "？", "answers": answers}))
    (sample,) = read_split(path, "train", make_task("span", max_seq_len=128)).samples
    assert (sample.references, sample.answer) == (references, span)


@pytest.mark.parametrize(
    "answers, message",
    [
        (5, "answers: expected a valid (list|array), found 5"),
        (False, "answers: expected a valid (list|array), found false"),
        ([5], r"answers\[0\]: expected an object, found 5"),
        (
            [{"text": ["中国"], "answer_start": [3]}],
            r"answers\[0\]\.text: expected a valid string, found the list",
        ),
        (
            {"text": ["中国"], "answer_start": []},
            "answers: .*text and answer_start are not lists of the same length",
        ),
        (
            [{"text": "中国", "answer_start": "third"}],
            r"answers\[0\]\.answer_start: expected a valid integer",
        ),
        ([{"text": "中国", "answer_start": True}], r"answers\[0\]\.answer_start: expected a valid integer"),
        (
            [{"text": "中国", "answer_start": float("nan")}],
            r"answers\[0\]\.answer_start: expected a valid integer",
        ),
    ],
)
def test_answers_of_no_clear_shape_are_refused_in_training_only(tmp_path, answers, message):
    path = tmp_path / "a.json"
    path.write_text(
        json.dumps(
            {
                "data": [
                    {
                        "paragraphs": [
                            {"context": "北京", "qas": [{"id": 1, "question": "？", "answers": answers}]}
                        ]
                    }
                ]
            }
        )
    )
    with pytest.raises(ConfigError, match=r"data\[0\]\.paragraphs\[0\]\.qas\[0\]\." + message):
        read_split(path, "dev", make_task("span", max_seq_len=128))
    assert read_split(path, "input", make_task("span", max_seq_len=128), "ignored").samples[0].qid == "1"


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"a": 1}\n{"a": 2}\n', r"a\.json: .*JSON lines.* at line 2 .*expected one SQuAD JSON"),
        ('{"data": ' + "[" * 100_000 + "]" * 100_000 + "}", r"a\.json: Invalid JSON: recursion"),
        ('{"data": [' + "1" * 5000 + "]}", r"a\.json: Invalid JSON: number out of range"),
        (
            r'{"data": [{"paragraphs": [{"context": "\ud800", "qas": []}]}]}',
            r"a\.json: Invalid JSON: .*hex escape",
        ),
        (
            '{"data": [{"paragraphs": [{"context": NaN, "qas": []}]}]}',
            "context: expected a valid string, found nan",
        ),
        (
            '{"data": [{"paragraphs": {}}]}',
            r"data\[0\]\.paragraphs: expected a valid (list|array), found a section",
        ),
        (squad({"id": None, "question": "？"}), "id: expected a valid string, found nothing"),
        (squad({"id": True, "question": "？"}), "id: expected a valid string, found true"),
        ("{", r"a\.json: Invalid JSON.* at line 1 "),
        ("[]", "expected an object"),
        (squad({"id": "q"}), r"data\[0\]\.paragraphs\[0\]\.qas\[0\]\.question: no such key"),
        (squad(question("q", "北", 0), question("q", "北", 0)), r"qas\[1\]: question id 'q' is used twice"),
        (squad({"id": "q", "question": "？"}), r"question 'q' has no reference answers"),
    ],
)
def test_squad_mistakes_name_the_place(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        read_split(write(tmp_path / "a.json", text), "dev", make_task("span", max_seq_len=128))


@pytest.mark.skipif(not (SHARED / "data" / "finetune").is_dir(), reason="no shared data")
@pytest.mark.parametrize(
    "name, file, kind, rows",
    [
        ("msra_ner", "dev.tsv", "tagging", 2318),
        ("chnsenticorp", "dev.tsv", "classification", 1160),
        ("cmrc2018", "train.json.gz", "span", 2887),
        ("glue/STS-B", "dev.tsv", "regression", 569),
    ],
)
def test_real_files(name, file, kind, rows):
    tags = ["B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "O"]
    task = make_task(kind, labels=tags) if kind == "tagging" else make_task(kind)
    split = read_split(SHARED / "data" / "finetune" / name / file, "train", task)
    assert len(split.samples) == rows


def test_spaces_are_taken_out_where_the_task_says_so(tmp_path):
    (tmp_path / "t.tsv").write_text("text_a\ttext_b\tlabel\n你 好 吗\tA B\t1\n", encoding="utf-8")
    for asked, wanted in ((True, ("你好吗", "AB")), (False, ("你 好 吗", "A B"))):
        task = load_finetune(
            ROOT / "tasks/finetune/lcqmc.yaml",
            ["init_from=x", "data_dir=y", f"drop_spaces={str(asked).lower()}"],
        )
        (row,) = read_split(tmp_path / "t.tsv", "dev", task).samples
        assert (row.text_a, row.text_b) == wanted


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", 'text_a,label\n"书,1\n', "a.csv:2: not CSV"),
        ("a.csv", "text_a,label\n书,1,2\n", "a.csv:2: found 3 fields, expected 2"),
        ("a.jsonl", '{"text_a": "书", "label": 1}\n{"text_a": "山"}\n', "a.jsonl:2: no key 'label'"),
        ("a.jsonl", '{"text_a": "书", "label": null}\n', "a.jsonl:1: label: found"),
        ("a.jsonl", "[1]\n", "a.jsonl:1: found"),
        ("a.jsonl", "{\n", "a.jsonl:1: not JSON"),
        ("a.jsonl", "\n", "a.jsonl:1: no column 'text_a'"),
    ],
)
def test_mistakes_in_csv_and_json_lines(name, text, words, tmp_path):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=words):
        read_split(path, "train", make_task())


def test_csv_and_json_lines_are_read_as_tsv_is(tmp_path):
    rows = [("书", "0"), ("山,水", "1"), ('"好"', "1")]
    (tmp_path / "a.tsv").write_text(
        "text_a\tlabel\n" + "".join(f"{a}\t{b}\n" for a, b in rows), encoding="utf-8"
    )
    with (tmp_path / "a.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text_a", "label"), *rows])
    lines = [json.dumps({"label": int(b), "text_a": a}, ensure_ascii=False) for a, b in rows]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = [
        [
            (sample.text_a, sample.label)
            for sample in read_split(tmp_path / f"a.{form}", "train", make_task()).samples
        ]
        for form in ("tsv", "csv", "jsonl")
    ]
    assert found[0] == found[1] == found[2] == [(a, int(b)) for a, b in rows]


def test_traditional_questions_become_simplified_with_their_places(tmp_path):
    """DRCD: passages, questions and answers are converted, and every span is still its answer."""
    pytest.importorskip("opencc")
    contexts = ["廣州是廣東省的省會，歷史悠久。", "乾隆皇帝喜歡乾淨的後宮", "裡面有麵條"]
    answers = [("廣東省", 3), ("乾隆皇帝", 0), ("麵條", 3)]
    paragraphs = [
        {
            "context": text,
            "qas": [{"id": str(n), "question": "誰？", "answers": [{"text": a, "answer_start": at}]}],
        }
        for n, (text, (a, at)) in enumerate(zip(contexts, answers, strict=True))
    ]
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}), encoding="utf-8")
    found = read_split(path, "train", make_task("span", simplify=True)).samples
    assert [one.context for one in found] == [
        "广州是广东省的省会，历史悠久。",
        "乾隆皇帝喜欢干净的后宫",
        "里面有面条",
    ]
    for one, (text, at) in zip(found, answers, strict=True):
        assert one.question == "谁？" and one.answer == (at, at + len(text))
        assert one.references == [one.context[at : at + len(text)]]


def test_the_real_drcd_is_simplified_place_by_place():
    path = SHARED / "data/finetune/drcd/dev.json"
    if not path.is_file():
        pytest.skip("no DRCD here")
    pytest.importorskip("opencc")
    plain = read_split(path, "dev", make_task("span")).samples
    for before, after in zip(
        plain, read_split(path, "dev", make_task("span", simplify=True)).samples, strict=True
    ):
        assert len(before.context) == len(after.context) and before.answer == after.answer
        start, stop = after.answer
        assert after.context[start:stop] == after.references[0]
