"""Samples -> sequences: lengths, windows, alignment by character offsets, and the way back to characters."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from test_finetune_readers import make_task

from ernie2.finetune.data import settle
from ernie2.finetune.features import (
    Feature,
    belonging,
    best_spans,
    build_features,
    decode,
    encode_tokens,
    pair_lengths,
    source_of_piece,
    windows,
)
from ernie2.finetune.metrics import score
from ernie2.finetune.readers import QuestionSample, TaggedSample, TextSample, read_split
from ernie2.finetune.tagging import Entity, TaggedText, entities_of, join_tokens
from ernie2.shards import IGNORED
from ernie2.strict import ConfigError
from ernie2.tokenizer import SPECIAL_TOKENS, Tokenizer, Vocab

TAGS = ["B-PER", "I-PER", "B-LOC", "I-LOC", "O"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    characters = sorted(
        set("张三李四住在北京上海的人说年月日天下大事分久必合是中国首都吗哪里哪个城市，。？！")
    )
    words = ["nba", "199", "##8", "20", "##08", "eu", "rejects", "wash", "##ington"]
    return Tokenizer(Vocab([*SPECIAL_TOKENS, *characters, *words]))


def features_of(task, samples, tokenizer, training=False):
    counts = Counter()
    return build_features(samples, tokenizer, task, counts, training), +counts


def test_pair_lengths_equal_removing_one_token_at_a_time():
    for a in range(12):
        for b in range(12):
            for room in range(1, 14):
                x, y = a, b
                while x + y > room:
                    x, y = (x - 1, y) if x > y else (x, y - 1)
                assert pair_lengths(a, b, room) == (x, y)


@pytest.mark.parametrize("max_seq_len", [8, 9, 16])
def test_no_sequence_is_longer_than_the_limit(tokenizer, max_seq_len):
    task = make_task(max_seq_len=max_seq_len)
    samples = [
        TextSample("", "天下大事" * n, None if m is None else "分久必合" * m, 0)
        for n in (0, 1, 3)
        for m in (None, 0, 1, 3)
    ]
    features, counts = features_of(task, samples, tokenizer)
    assert max(len(feature.token_ids) for feature in features) == max_seq_len
    assert counts["samples cut to max_seq_len"] == sum(
        len(s.text_a) + len(s.text_b or "") > max_seq_len - 2 - (s.text_b is not None) for s in samples
    )


def test_layout_of_a_pair(tokenizer):
    (feature,), _ = features_of(make_task(), [TextSample("", "张三", "北京", 1)], tokenizer)
    vocab = tokenizer.vocab
    tokens = [vocab.id_to_token[i] for i in feature.token_ids]
    assert tokens == ["[CLS]", "张", "三", "[SEP]", "北", "京", "[SEP]"]
    assert feature.sentence_ids.tolist() == [0, 0, 0, 0, 1, 1, 1] and feature.target == 1


@pytest.mark.parametrize(
    "tokens, width, stride", [(0, 5, 2), (5, 5, 2), (6, 5, 2), (23, 5, 2), (23, 5, 9), (100, 7, 7)]
)
def test_windows_cover_the_text_and_each_token_belongs_to_one(tokens, width, stride):
    ranges = windows(tokens, width, stride)
    assert all(0 <= stop - start <= width for start, stop in ranges) and ranges[-1][1] == tokens
    owned = np.zeros(tokens, int)
    context = np.full(tokens, -1)
    for start, stop in ranges:
        inside = np.arange(stop - start)
        context[start:stop] = np.maximum(context[start:stop], np.minimum(inside, stop - start - 1 - inside))
    for (start, stop), mine in zip(ranges, belonging(ranges, tokens)):
        owned[start:stop] += mine
        inside = np.arange(stop - start)[mine]
        assert (np.minimum(inside, stop - start - 1 - inside) == context[start:stop][mine]).all()
    assert (owned == 1).all()


def test_source_tokens_are_tokenised_each_by_itself(tokenizer):
    tokens = join_tokens(["19", "nba", "8", "年", "\u200b", " ", "washington", "2", "0"])
    encoded = encode_tokens(tokenizer, tokens)
    pieces = [tokenizer.vocab.id_to_token[i] for i in encoded.ids]
    assert pieces == ["[UNK]", "nba", "[UNK]", "年", "[UNK]", "[UNK]", "wash", "##ington", "[UNK]", "[UNK]"]
    owner, first = source_of_piece(tokens.spans, encoded.starts)
    assert owner.tolist() == [0, 1, 2, 3, 4, 5, 6, 6, 7, 8] and first.tolist() == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    assert encode_tokens(tokenizer, TaggedText("", [])).ids.tolist() == []


def test_further_pieces_of_a_word_continue_its_entity(tokenizer):
    tokens = join_tokens(["EU", "rejects", "Washington"])
    (feature,), counts = features_of(make_task("tagging"), [TaggedSample("", tokens, [4, 4, 2])], tokenizer)
    assert feature.target.tolist() == [IGNORED, 4, 4, 2, 3, IGNORED] and not counts


@pytest.mark.parametrize("form", ["tokens", "characters", "visible", "words"])
def test_gold_tags_come_back_from_every_form_of_row(tokenizer, form, tmp_path):
    rng = np.random.default_rng(0)
    pool = ["A", "2", "19", "98", "年", "北", "NBA", "a-b", "\u200b", "😀", "é", "e\u0301"]
    pool += [] if form == "words" else [" ", "\u3000", ""]
    rows = []
    for _ in range(60):
        tokens = [pool[i] for i in rng.integers(len(pool), size=rng.integers(1, 30))]
        text = {"tokens": "\x02", "words": " "}.get(form, "").join(tokens)
        units = {"tokens": tokens, "words": tokens, "characters": text}.get(
            form, [c for c in text if not c.isspace()]
        )
        rows.append(text + "\t" + " ".join(TAGS[i] for i in rng.integers(5, size=len(units))))
    path = tmp_path / "a.tsv"
    path.write_text("text_a\tlabel\n" + "\n".join(rows) + "\n", encoding="utf-8")
    task = make_task("tagging", max_seq_len=16, doc_stride=8)
    samples = read_split(path, "dev", task).samples
    features, _ = features_of(task, samples, tokenizer)
    records = decode(task, samples, features, oracle_tags(task, features))
    assert score(task, samples, records) == {"entity_f1": 100.0}
    for record, row in zip(records, rows, strict=True):
        tokens = (
            row.split("\t")[0].split("\x02")
            if form == "tokens" and "\x02" in row.split("\t")[0]
            else record["text"]
        )
        assert len(record["tags"]) == len(tokens) and record.get("tokens", tokens) == tokens


@pytest.mark.parametrize(
    "rows, raw, tokens",
    [
        (["张\x021\x029\tB-PER O O"], "在 A21。", ["在", "A", "2", "1", "。"]),
        (["张 19\tB-PER O O O"], "在 A21。", ["在", " ", "A", "2", "1", "。"]),
        (["EU\x02rejects\x02.\tO O O", "北\x02京\x02a\tO O O"], "在 A21b.x", ["在", "A21b", ".", "x"]),
        (["EU rejects .\tO O O"], "A21_北京", ["A21", "_", "北", "京"]),
    ],
)
def test_raw_text_is_cut_as_training_was(rows, raw, tokens, tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("text_a\tlabel\n" + "\n".join(rows) + "\n", encoding="utf-8")
    task = make_task("tagging")
    settle(task, read_split(path, "train", task))
    path.write_text(f"text_a\n{raw}\n", encoding="utf-8")
    (sample,) = read_split(path, "input", task, "ignored").samples
    assert [sample.tokens.text[a:b] for a, b in sample.tokens.spans] == tokens and sample.tokens.text == raw


def test_an_output_that_is_not_finite_names_the_sample():
    with pytest.raises(ConfigError, match=r"x\.tsv:3: the model's output is not a finite number"):
        decode(
            make_task(),
            [TextSample("x.tsv:3", "a")],
            [Feature(0, np.zeros(3), np.zeros(3))],
            [np.array([0, np.nan])],
        )


def oracle_tags(task, features):
    """Logits that are certain of each feature's own target."""
    outputs = []
    for feature in features:
        logits = np.zeros((len(feature.token_ids), len(task.labels)))
        for position, tag in enumerate(feature.target):
            logits[position, tag if tag != IGNORED else 1] = (
                9  # what is ignored says I-PER, and must not matter
            )
        outputs.append(logits)
    return outputs


@pytest.mark.parametrize("max_seq_len", [8, 12, 64])
def test_tags_come_back_through_windows_and_pieces(tokenizer, max_seq_len):
    tokens = list("张三1998年在北 京说nba，李四住在上海的城市。") * 2
    tags = ([0, 1] + [4] * 6 + [2, 3, 3] + [4] + [2, 3, 3] + [4, 0, 1] + [4] * 2 + [2, 3] + [4] * 4) * 2
    task = make_task("tagging", max_seq_len=max_seq_len, doc_stride=4)
    sample = TaggedSample("", join_tokens(tokens), tags)
    features, counts = features_of(task, [sample], tokenizer)
    assert counts.get("samples read in windows", 0) == (max_seq_len < 64)
    (record,) = decode(task, [sample], features, oracle_tags(task, features))
    expected = entities_of([TAGS[tag] for tag in tags], sample.tokens.spans)
    assert [Entity(e["type"], e["start"], e["end"]) for e in record["entities"]] == expected
    assert record["tags"] == [TAGS[tag] for tag in tags] and record["text"] == "".join(tokens)
    assert all(record["text"][e["start"] : e["end"]] == e["text"] for e in record["entities"])
    assert record["entities"][1]["text"] == "北 京"  # a token of white space


CONTEXT = "天下大事，分久必合。北京是中国的首都，上海是中国的城市。1998年，张三住在北京。" * 3


def questions(max_seq_len):
    task = make_task("span", max_seq_len=max_seq_len, max_query_len=4, doc_stride=6, max_answer_len=30)
    spans = [(0, 4), (10, 12), (28, 32), (28, 31), (len(CONTEXT) - 3, len(CONTEXT) - 1), (50, 58)]
    samples = [
        QuestionSample("", f"q{i}", "哪个城市是首都？", CONTEXT, [CONTEXT[a:b]], (a, b))
        for i, (a, b) in enumerate(spans)
    ]
    return task, samples


@pytest.mark.parametrize("max_seq_len", [24, 48, 512])
def test_answers_come_back_through_windows(tokenizer, max_seq_len):
    task, samples = questions(max_seq_len)
    features, counts = features_of(task, samples, tokenizer, training=True)
    assert counts["questions cut to max_query_len"] == len(samples)
    outputs = []
    for feature in features:
        assert len(feature.token_ids) <= max_seq_len
        start, stop = np.zeros((2, len(feature.token_ids)))
        start[feature.target[0]] = stop[feature.target[1]] = 5.0
        outputs.append((start, stop))
    records = decode(task, samples, features, outputs)
    # (28, 31) ends inside the piece 199: tokens cannot be cut, so the answer is the token.
    assert [r["answer"] for r in records] == [
        CONTEXT[a:b] if (a, b) != (28, 31) else "199" for a, b in (s.answer for s in samples)
    ]
    for record in records:
        assert len(record["nbest"]) == task.n_best
        assert all(CONTEXT[n["start"] : n["end"]] == n["text"] for n in record["nbest"])
        assert len({(n["start"], n["end"]) for n in record["nbest"]}) == task.n_best


@pytest.mark.parametrize("doc_stride, count", [(16, 0), (17, 1)])
def test_windows_that_do_not_overlap_are_counted(tokenizer, doc_stride, count):
    task = make_task("span", max_seq_len=24, max_query_len=4, doc_stride=doc_stride)
    _, counts = features_of(task, questions(24)[1][:1], tokenizer)
    assert counts["samples in windows without overlap (lower doc_stride)"] == count


def test_a_window_without_the_answer_points_at_cls(tokenizer):
    task, samples = questions(24)
    features, _ = features_of(task, samples[:1], tokenizer, training=True)
    assert features[0].target != (0, 0) and features[-1].target == (0, 0)


def test_questions_without_an_answer_are_left_out_of_training_only(tokenizer):
    task = make_task("span", max_query_len=4)
    sample = QuestionSample("", "q", "哪里", "北京", ["无"], None)
    assert features_of(task, [sample], tokenizer, training=True) == (
        [],
        {"questions without a usable answer, left out": 1},
    )
    features, _ = features_of(task, [sample], tokenizer)
    assert len(features) == 1 and features[0].target is None


def test_best_spans_are_exact():
    rng = np.random.default_rng(0)
    start, stop, allowed = rng.normal(size=9), rng.normal(size=9), rng.random(9) > 0.3
    every = sorted(
        ((start[i] + stop[j], i, j) for i in range(9) if allowed[i] for j in range(i, min(9, i + 3))),
        reverse=True,
    )
    assert best_spans(start, stop, allowed, longest=3, count=5) == [pytest.approx(span) for span in every[:5]]
    assert len(best_spans(start, stop, allowed, longest=3, count=100)) == len(every)
    assert best_spans(start, stop, np.zeros(9, bool), 3, 5) == []


def test_an_empty_passage_gives_an_empty_answer(tokenizer):
    task = make_task("span", max_query_len=4)
    sample = QuestionSample("", "q", "哪里", "", [""], None)
    features, _ = features_of(task, [sample], tokenizer)
    zeros = np.zeros(len(features[0].token_ids))
    assert decode(task, [sample], features, [(zeros, zeros)])[0]["answer"] == ""
