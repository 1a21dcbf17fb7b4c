"""The seven generators: every label means what PAPER says, held against the text it was made from."""

from __future__ import annotations

import math
import re
from collections import Counter
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from data_gen.generators import (
    capitalization,
    connectives,
    discourse_relation,
    ir_relevance,
    knowledge_masking,
    load_generator,
    sentence_distance,
    sentence_reordering,
    token_document,
)
from data_gen.packing import Packer, assemble
from data_gen.reading.documents import RawDocument, RawPair
from data_gen.text.annotate import Annotator
from data_gen.text.tokens import ALL_LEVELS, Document, Pair, Sentence
from ernie2.config import ConfigError
from ernie2.shards import IGNORED, Example, check_example
from ernie2.tasks import Task, load_task, load_tasks
from ernie2.tokenizer import SPECIAL_TOKENS, Tokenizer, Vocab

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
PUNCTUATION = ".,:;!?'\"()-，。：；！？、“”"


def make_vocab(*texts: str) -> Vocab:
    """Every character of the texts, and the letters as pieces."""
    characters = sorted(
        {c for text in texts for c in text.lower() if not c.isspace()} | set(LETTERS + PUNCTUATION)
    )
    return Vocab([*SPECIAL_TOKENS, *characters, *("##" + c for c in LETTERS)])


def documents(texts: list[list[str]], language: str = "en") -> tuple[list[Document], Tokenizer]:
    """Annotated documents; a text is a list of paragraphs."""
    vocab = make_vocab(*("".join(text) for text in texts))
    annotator = Annotator(Tokenizer(vocab), language)
    return annotator.documents(
        [RawDocument(f"t:{i}", "\n".join(text)) for i, text in enumerate(texts)]
    ), annotator.tokenizer


def packer(tokenizer: Tokenizer, max_seq_len: int = 64) -> Packer:
    return Packer(tokenizer.vocab.cls_id, tokenizer.vocab.sep_id, max_seq_len)


def run(
    module: object,
    source: list,
    tokenizer: Tokenizer,
    language: str = "en",
    max_seq_len: int = 64,
    seed: int = 0,
    **args: object,
) -> tuple[list[Example], list[tuple[str, str, str]]]:
    packs = packer(tokenizer, max_seq_len)
    made = list(module.generate(source, np.random.default_rng(seed), packer=packs, language=language, **args))
    return [example for one in made for example in assemble([one], packs).examples()], packs.rejected


def segments(example: Example, tokenizer: Tokenizer) -> list[str]:
    """Text of each segment, spaces removed."""
    special = tokenizer.vocab.special[example.token_ids]
    return [
        tokenizer.decode(example.token_ids[(example.sentence_ids == i) & ~special]).replace(" ", "")
        for i in np.unique(example.sentence_ids)
    ]


def story(number: int, sentences: int) -> str:
    """Sentences that name their document and place: `d3 s7 ....`"""
    return " ".join(f"D{number} s{place} went on well." for place in range(sentences))


STORIES = [[story(i, n)] for i, n in enumerate([12, 5, 2, 9, 1, 30])]


def test_every_yaml_agrees_with_its_generator() -> None:
    tasks = load_tasks()
    assert {task.task_id: name for name, task in tasks.items()} == {
        0: "knowledge_masking",
        1: "capitalization",
        2: "token_document",
        3: "sentence_reordering",
        4: "sentence_distance",
        5: "discourse_relation",
        6: "ir_relevance",
    }
    for task in tasks.values():
        for language in ("zh", "en"):
            generator = load_generator(task, language)
            for label in range(task.sentence_classes or task.token_classes or 0):
                assert generator.describe(label)


def test_knowledge_masking_uses_every_token_once() -> None:
    docs, tokenizer = documents(STORIES)
    examples, _ = run(knowledge_masking, docs, tokenizer)
    special = tokenizer.vocab.special
    made = np.concatenate([e.token_ids[~special[e.token_ids]] for e in examples])
    assert made.tolist() == np.concatenate([s.token_ids for d in docs for s in d.sentences]).tolist()
    assert all((e.sentence_ids == 0).all() for e in examples)
    assert np.mean([len(e.token_ids) for e in examples]) > 40


def test_capitalization_labels_words_before_lower_casing() -> None:
    docs, tokenizer = documents([["The old Man saw NASA in 1969. it rained."], ["1 + 1 = 2."]])
    examples, rejected = run(capitalization, docs, tokenizer)
    labelled: dict[str, set[int]] = {}
    for e in examples:
        for word in np.unique(e.span_ids["word"]):
            at = e.span_ids["word"] == word
            labelled[tokenizer.decode(e.token_ids[at])] = set(e.token_labels[at].tolist())
    assert {w for w, v in labelled.items() if v == {1}} == {"the", "man", "nasa"}
    assert {w for w, v in labelled.items() if v == {0}} == {"old", "saw", "in", "it", "rained"}
    assert all(
        v == {IGNORED} for w, v in labelled.items() if not w.isalpha()
    )  # numbers, punctuation, special tokens
    assert [reason for _, reason, _ in rejected] == ["text without cased letters"]


def test_token_document_says_whether_the_word_is_in_other_segments() -> None:
    text = ["Cats chase birds here. Cats sleep now.", "Birds sing songs. Dogs bark too."]
    docs, tokenizer = documents([text, ["One sentence only."]])
    examples, rejected = run(token_document, docs, tokenizer, max_seq_len=40, short_seq_prob=0.0)
    assert [reason for _, reason, _ in rejected] == ["document of one sentence"]
    special = tokenizer.vocab.special
    words = [re.findall(r"[a-z]+", tokenizer.decode(e.token_ids[~special[e.token_ids]])) for e in examples]
    assert len(examples) >= 2
    for i, example in enumerate(examples):
        others = {w for j, ws in enumerate(words) if j != i for w in ws}
        for word in np.unique(example.span_ids["word"]):
            at = example.span_ids["word"] == word
            text_of, labels = tokenizer.decode(example.token_ids[at]), set(example.token_labels[at].tolist())
            ignored = not text_of.isalpha() or text_of in token_document.STOP_WORDS["en"]
            assert labels == ({IGNORED} if ignored else {int(text_of in others)}), text_of
    assert {1, 0} <= {int(v) for e in examples for v in e.token_labels}


def test_token_document_can_keep_stop_words_and_bounds_documents() -> None:
    docs, tokenizer = documents([[story(0, 60)]])
    kept, _ = run(token_document, docs, tokenizer, ignore_stop_words=False)
    at = next(e for e in kept)
    assert at.token_labels[np.flatnonzero(at.token_ids == tokenizer.vocab.token_to_id["o"])[0]] == 1  # "on"
    # Words "s0", "s1" ... occur once: with windows of two segments the label of nothing but them is 0.
    small, _ = run(token_document, docs, tokenizer, max_segments=2)
    assert len(small) >= len(kept) - 2


@pytest.mark.parametrize("most", [2, 3, 4, 5])
def test_reordering_classes_are_all_permutations(most: int) -> None:
    orders = [order for n in range(1, most + 1) for order in permutations(range(n))]
    assert sentence_reordering.orders(most) == orders
    assert len(sentence_reordering.class_table(most).splitlines()) == len(orders) + 1


def test_reordering_uses_every_token_once() -> None:
    """Five sentences of which four fit: what is left over joins no passage that would have to be cut for
    it."""
    docs, tokenizer = documents([[story(i, 5)] for i in range(40)])
    rows = docs[0].sentences.rows
    capacity = int(rows[3, 1] - rows[0, 0])
    assert capacity < rows[4, 1] - rows[0, 0]
    examples, rejected = run(sentence_reordering, docs, tokenizer, max_seq_len=capacity + 5)
    used = sum(int((~tokenizer.vocab.special[example.token_ids]).sum()) for example in examples)
    assert (
        used == sum(int(document.sentences.rows[-1, 1] - document.sentences.rows[0, 0]) for document in docs)
        and not rejected
    )


def test_reordering_labels_restore_the_text_and_reach_every_class() -> None:
    docs, tokenizer = documents([[story(i, 12)] for i in range(300)])
    examples, _ = run(sentence_reordering, docs, tokenizer, max_seq_len=128)
    counts = Counter(e.sentence_label for e in examples)
    assert set(counts) == set(range(33))
    expected = len(examples) / 33
    chi2 = sum((counts[k] - expected) ** 2 / expected for k in range(33))
    assert chi2 < 70  # 32 degrees of freedom: P < 0.0002
    for example in examples:
        order = sentence_reordering.orders()[example.sentence_label]
        shown = [[int(n) for n in re.findall(r"s(\d+)", s)] for s in segments(example, tokenizer)]
        assert len(shown) == len(order)
        original = [shown[order.index(i)] for i in range(len(order))]
        flat = [n for part in original for n in part]
        assert flat == list(range(flat[0], flat[0] + len(flat)))


def test_reordering_splits_passages_anywhere_alike() -> None:
    starts = np.repeat([0, 100], 3_000)
    edges = sentence_reordering._edges(starts, starts + 6, 4, np.random.default_rng(0))
    assert (
        (edges[:, 0] == starts).all()
        and (edges[:, -1] == starts + 6).all()
        and (np.diff(edges, axis=1) > 0).all()
    )
    counts = Counter(map(tuple, (edges[:, 1:-1] - starts[:, None]).tolist()))
    assert len(counts) == math.comb(5, 3)
    assert sum((count - 600) ** 2 / 600 for count in counts.values()) < 28  # 9 degrees of freedom: P < 0.001


def test_reordering_rejects_single_sentences_and_leaves_none_over() -> None:
    docs, tokenizer = documents(STORIES)
    examples, rejected = run(sentence_reordering, docs, tokenizer, max_seq_len=64)
    assert [reason for _, reason, _ in rejected] == ["document of one sentence"]
    assert sum(e.sentence_label == 0 for e in examples) < len(examples) / 3


def test_reordering_with_two_segments_has_three_classes() -> None:
    docs, tokenizer = documents([[story(i, 12)] for i in range(20)])
    examples, _ = run(sentence_reordering, docs, tokenizer, max_segments=2)
    assert {e.sentence_label for e in examples} == {0, 1, 2}


def test_distance_labels_are_true_and_balanced() -> None:
    docs, tokenizer = documents(STORIES * 1 + [[story(i, 8)] for i in range(10, 30)])
    examples, rejected = run(sentence_distance, docs, tokenizer)
    assert [reason for _, reason, _ in rejected] == ["document of one sentence"]
    counts = Counter(e.sentence_label for e in examples)
    assert len(set(counts.values())) == 1 and set(counts) == {0, 1, 2} and counts[0] > 20
    for example in examples:
        (d1, s1), (d2, s2) = (
            map(int, re.match(r"d(\d+)s(\d+)", s).groups()) for s in segments(example, tokenizer)
        )
        truth = 2 if d1 != d2 else 0 if s2 == s1 + 1 else 1
        assert example.sentence_label == truth
        assert truth != 1 or abs(s1 - s2) > 1


def test_distance_needs_two_documents() -> None:
    docs, tokenizer = documents([[story(0, 8)]])
    examples, rejected = run(sentence_distance, docs, tokenizer)
    assert not examples and [reason for _, reason, _ in rejected] == ["no other document in its block"]


def test_discourse_removes_the_connective_and_keeps_it_as_label() -> None:
    docs, tokenizer = documents(
        [
            ["It rained all day long.", "However, we went out. But nobody came along. We sat there alone."],
            ["The sun set early. Then, it was dark."],
            ["Only one sentence."],
        ]
    )
    examples, rejected = run(discourse_relation, docs, tokenizer, no_conn_share=0.5)
    names = connectives.class_names("en")
    made = {(names[e.sentence_label], *segments(e, tokenizer)) for e in examples}
    assert {m for m in made if m[0] != "[no-conn]"} == {
        ("however", "itrainedalldaylong.", "wewentout."),
        ("but", "however,wewentout.", "nobodycamealong."),
        ("then", "thesunsetearly.", "itwasdark."),
    }
    assert [m for m in made if m[0] == "[no-conn]"] == [
        ("[no-conn]", "butnobodycamealong.", "wesattherealone.")
    ]
    assert [reason for _, reason, _ in rejected] == ["document of one sentence"]


def test_chinese_connectives_respect_word_edges() -> None:
    docs, tokenizer = documents(
        [
            [
                "他们很早就出发了。",
                "而他们的车坏在路上。",
                "而立之年的人都明白。",
                "这样的人不多。",
                "因此，大家走路回家。",
            ]
        ],
        "zh",
    )
    examples, _ = run(discourse_relation, docs, tokenizer, "zh", no_conn_share=0.0)
    names = connectives.class_names("zh")
    made = [(names[e.sentence_label], segments(e, tokenizer)[1]) for e in examples]
    assert made == [("而", "他们的车坏在路上。"), ("因此", "大家走路回家。")]


def pairs() -> tuple[list[Pair], Tokenizer]:
    rows = [(f"query {q}", f"title {q}x{t}", int(t > 0)) for q in range(20) for t in range(4)]
    vocab = make_vocab(*(q + t for q, t, _ in rows))
    annotator = Annotator(Tokenizer(vocab), "en")
    raws = [RawPair(f"l:{i}", *row) for i, row in enumerate(rows)]
    return annotator.pairs(raws), annotator.tokenizer


@pytest.mark.parametrize(("wanted", "count"), [(1, 20), (2, 40), (0, 0), ("balanced", 40)])
def test_ir_relevance_keeps_the_log_and_adds_titles_of_others(wanted: int | str, count: int) -> None:
    source, tokenizer = pairs()
    examples, rejected = run(ir_relevance, source, tokenizer, random_per_query=wanted)
    assert Counter(e.sentence_label for e in examples) == Counter(
        {0: 20, 1: 60} | ({2: count} if count else {})
    )
    assert not rejected
    for example in examples:
        query, title = segments(example, tokenizer)
        assert title.startswith("title" + query.removeprefix("query") + "x") == (example.sentence_label < 2)


def test_ir_relevance_rejects_a_lone_query() -> None:
    source, tokenizer = pairs()
    _, rejected = run(ir_relevance, source[:4], tokenizer, random_per_query=1)
    assert [reason for _, reason, _ in rejected] == ["no other query's title in its block"]


def test_same_seed_same_examples() -> None:
    docs, tokenizer = documents(STORIES)
    for module in (
        knowledge_masking,
        token_document,
        sentence_reordering,
        sentence_distance,
        discourse_relation,
    ):
        first, second, other = (run(module, docs, tokenizer, seed=seed)[0] for seed in (3, 3, 4))
        assert [e.token_ids.tolist() for e in first] == [e.token_ids.tolist() for e in second]
        if module is sentence_reordering:
            assert [e.token_ids.tolist() for e in first] != [e.token_ids.tolist() for e in other]


def test_every_example_keeps_its_contract() -> None:
    docs, tokenizer = documents(STORIES)
    for task in load_tasks().values():
        source, tok = (docs, tokenizer) if task.sources[0] == "documents" else pairs()
        for item in load_generator(task, "en").generate(source, np.random.default_rng(0), packer(tok)):
            for example in assemble([item], packer(tok)).examples():
                check_example(example, task, len(tok.vocab))


def yaml_task(folder: Path, **changes: object) -> Task:
    fields = {
        "name": "new",
        "task_id": 9,
        "source": "documents",
        "generator": "data_gen.generators.sentence_reordering",
        "generator_args": "{max_segments: 4}",
        "losses": "[{head: sentence, num_classes: 33}]",
    } | changes
    path = folder / "new.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in fields.items()), encoding="utf-8")
    return load_task(path)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (
            {"generator": "data_gen.generators.sentence_reorderng"},
            ["generator: there is no module", "did you mean", "new.yaml"],
        ),
        ({"generator": "nowhere.at_all"}, ["generator: there is no module 'nowhere.at_all'"]),
        ({"generator": "data_gen.packing", "generator_args": "{}"}, ["no function generate"]),
        (
            {"generator_args": "{max_segment: 4}"},
            ["generator_args.max_segment", "did you mean 'generator_args.max_segments'"],
        ),
        (
            {"generator_args": "{max_segments: many}"},
            ["new.yaml: generator_args.max_segments: found text 'many'", "expected a whole number"],
        ),
        ({"generator_args": "{max_segments: 4.0}"}, ["generator_args.max_segments: found 4.0"]),
        ({"generator_args": "{max_segments: true}"}, ["generator_args.max_segments: found true"]),
        (
            {
                "generator": "data_gen.generators.knowledge_masking",
                "generator_args": "{short_seq_prob: .nan}",
                "losses": "[{head: masked_lm}]",
            },
            ["generator_args.short_seq_prob: found nan", "expected a number"],
        ),
        (
            {
                "generator": "data_gen.generators.knowledge_masking",
                "generator_args": "{short_seq_prob: 2}",
                "losses": "[{head: masked_lm}]",
            },
            ["generator_args.short_seq_prob: found 2, expected 0 to 1"],
        ),
        (
            {"generator": "data_gen.generators.sentence_distance", "generator_args": "{min_tokens: -5}"},
            ["generator_args.min_tokens: found -5, expected 1 or more"],
        ),
        (
            {"generator": "data_gen.generators.ir_relevance", "generator_args": "{random_per_query: many}"},
            ["random_per_query: found text 'many', expected a whole number or 'balanced'"],
        ),
        ({"generator_args": "{max_segments: 3}"}, ["num_classes is 33", "makes 9 classes"]),
        ({"generator_args": "{max_segments: 9}"}, ["max_segments: found 9", "new.yaml"]),
        (
            {
                "generator": "data_gen.generators.knowledge_masking",
                "generator_args": "{}",
                "balance": 2.0,
                "losses": "[{head: masked_lm}]",
            },
            ["balance", "sentence head"],
        ),
    ],
)
def test_mistakes_in_a_task_file_are_named(tmp_path: Path, changes: dict, parts: list[str]) -> None:
    task = yaml_task(tmp_path, **changes)
    with pytest.raises(ConfigError) as caught:
        load_generator(task, "zh")
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_arguments_of_several_kinds_are_taken(tmp_path: Path) -> None:
    for given in ("2", "balanced"):
        task = yaml_task(
            tmp_path,
            source="pairs",
            generator="data_gen.generators.ir_relevance",
            generator_args=f"{{random_per_query: {given}}}",
            losses="[{head: sentence, num_classes: 3}]",
        )
        assert len(load_generator(task, "zh").labels.names) == 3
    task = yaml_task(
        tmp_path,
        generator="data_gen.generators.sentence_distance",
        losses="[{head: sentence, num_classes: 3}]",
        generator_args="{min_tokens: 9}",
    )
    assert load_generator(task, "zh").task.generator_args == {"min_tokens": 9}


def test_sentence_without_opening_keeps_its_annotation() -> None:
    docs, _ = documents([["However, Tom went home."]])
    sentence: Sentence = docs[0].sentences[0]
    rows, whole = discourse_relation.without_openings(
        sentence.tokens, docs[0].sentences.rows[[0, 0]], np.array([9, 10])
    )
    assert whole.tolist() == [True, False]
    rest = Sentence(sentence.tokens, *rows[0].tolist())
    assert rest.text == "Tom went home." and rest.begins[0] == ALL_LEVELS and rest.starts[0] == 0
