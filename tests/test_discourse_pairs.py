"""discourse_relation: what is mined, what the filters leave out, marked pairs, and what it costs."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest

from data_gen.generators import connectives, discourse_relation
from data_gen.generators.discourse_relation import is_balanced
from data_gen.packing import Packer
from data_gen.text.tokens import ALL_LEVELS, Document, Pair, Sentences, Tokens

NAMES = {language: connectives.class_names(language) for language in ("zh", "en")}


def table(texts: list[str], words: int = 1) -> Sentences:
    """Sentences of one table, each character but spaces a token, `words` of them a word (and phrase and
    entity)."""
    text = "\n".join(texts)
    at = [i for i, character in enumerate(text) if not character.isspace()]
    starts = np.array(at, np.int32)
    tokens = Tokens(
        text,
        np.arange(10, 10 + len(at), dtype=np.int32),
        starts,
        starts + 1,
        np.full(len(at), ALL_LEVELS, np.uint8),
        np.zeros(len(at), bool),
    )
    made, begin = [], 0
    for one in texts:
        first, last = np.searchsorted(starts, [begin, begin + len(one)]).tolist()
        tokens.begins[[i for i in range(first, last) if (i - first) % words]] = 0
        made.append((first, last, begin, begin + len(one)))
        begin += len(one) + 1
    return Sentences(tokens, np.array(made))


def run(source: list, language: str = "zh", **args: object) -> tuple[list[tuple[str, str, str]], Counter]:
    """(class, first, second) of every example, and the reasons of what was rejected."""
    packed, packer = [], Packer(1, 2, 512)
    for one in discourse_relation.generate(
        source, np.random.default_rng(0), packer=packer, language=language, **{"no_conn_share": 0.0} | args
    ):
        for label, stretches in zip(one.labels.tolist(), one.stretches.tolist(), strict=True):
            texts = [
                "".join(one.tokens.text[i] for i in one.tokens.starts[first:last])
                for first, last in stretches
            ]
            packed.append((NAMES[language][label], *texts))
    return packed, packer.reasons


def documents(*texts: list[str], language: str = "zh", words: int = 1) -> list[Document]:
    """Documents of one table."""
    sentences = table([one for some in texts for one in some], words)
    ends = np.cumsum([len(some) for some in texts]).tolist()
    return [
        Document("t:1", sentences[end - len(some) : end], False, language)
        for some, end in zip(texts, ends, strict=True)
    ]


def pairs(*given: tuple[str, str, str]) -> list[Pair]:
    """Marked pairs of one table."""
    sentences = table([text for first, second, _ in given for text in (first, second)])
    return [
        Pair("t:1", sentences[2 * i], sentences[2 * i + 1], label, False)
        for i, (_, _, label) in enumerate(given)
    ]


def test_connectives_are_mined_and_removed() -> None:
    made, reasons = run(
        documents(["他走了很远。", "但是他没有回来。", "因此，大家都很担心。", "最后一次他来了。"])
    )
    assert (
        made == [("但是", "他走了很远。", "他没有回来。"), ("因此", "但是他没有回来。", "大家都很担心。")]
        and not reasons
    )
    made, _ = run(documents(["他走了很远。", "但是他没有回来。"], words=3))
    assert made == [], "the connective is only the beginning of a word"
    made, _ = run(
        documents(["He went away.", "But nobody came back.", "Then, it was dark."], language="en"), "en"
    )
    assert made == [("but", "Hewentaway.", "nobodycameback."), ("then", "Butnobodycameback.", "itwasdark.")]


def test_pairs_without_a_connective_are_drawn() -> None:
    texts = [
        text
        for i in range(20)
        for text in (f"第{i}天他走了很远。", f"但是第{i}天没有回来。", f"那里的水{i}很深很冷。")
    ]
    made, _ = run(documents(texts[:30], texts[30:]), no_conn_share=0.5)
    counts = Counter(name for name, *_ in made)
    assert counts == {"但是": 20, "[no-conn]": 10}
    after = {a: b for half in (texts[:30], texts[30:]) for a, b in zip(half, half[1:], strict=False)}
    for name, first, second in made:
        assert after[first] == ("" if name == "[no-conn]" else name) + second
    assert run(documents(texts), no_conn_share=9.0)[0].count(("[no-conn]", texts[1], texts[2])) == 1


@pytest.mark.parametrize(
    ("first", "second", "args", "reason"),
    [
        ("他走了很远很远。", "但是他没有回来。", {"max_words": 7}, "sentence of more than 7 words"),
        ("他走了很远。", "但是12345678他。", {}, "too few letters in a sentence"),
        ("他说：“走了很远。", "但是他没有回来。", {}, "bracket or quotation mark without its partner"),
        ("他走了很远。", "但是他）没有（回来。", {}, "bracket or quotation mark without its partner"),
        ("HE WENT away.", "But NOBODY CAME.", {"language": "en"}, "sentence in capitals"),
    ],
)
def test_filters(first: str, second: str, args: dict, reason: str) -> None:
    made, reasons = run(documents([first, second], language=args.get("language", "zh")), **args)
    assert made == [] and reasons == {reason: 1}
    loose = {"max_words": 99, "min_letters": 0.0, "balanced": False}
    if "language" not in args:
        assert len(run(documents([first, second]), **loose)[0]) == 1


def test_the_same_pair_counts_once() -> None:
    texts = ["他走了很远。", "但是他没有回来。"]
    made, reasons = run(documents(texts, texts))
    assert len(made) == 1 and reasons == {"pair seen before in its block": 1}


def test_balanced() -> None:
    assert all(map(is_balanced, ["（a）《b》", '"a" "b"', "“a‘b’”", "", "((a)b)"]))
    assert not any(map(is_balanced, ["）（", '"', "“", "(()", "《"]))


def test_marked_pairs_are_taken_as_they_are() -> None:
    label = "因此"
    made, reasons = run(
        pairs(
            ("他走了很远。", "大家都很担心。", label),
            ("他走了很远。", "因此，大家都在等他。", label),
            ("他走了很远。", "但是没有人来过。", label),
            ("他走了很远。", "大家都不在意。", "哈哈"),
            ("他走。", "好。", label),
            ("他走了很远。", "大家都很担心。", "[no-conn]"),
            ("天黑了下来。", "大家都很担心。", "[no-conn]"),
            ("天黑了下来。", "但是没有人来过。", "[no-conn]"),
            ("天黑了下来。", "值得注意的是", "值得注意的是"),
        )
    )
    assert made == [
        ("因此", "他走了很远。", "大家都很担心。"),
        ("因此", "他走了很远。", "大家都在等他。"),
        ("因此", "他走了很远。", "但是没有人来过。"),
        ("[no-conn]", "天黑了下来。", "大家都很担心。"),
    ]
    assert reasons == {
        "marker that is no connective of data.language": 1,
        "sentence of fewer than 4 tokens": 1,
        "pair seen before in its block": 1,
        "marked as having no connective, and opens with one": 1,
        "connective that stays in its sentence": 1,
    }


@pytest.mark.parametrize(
    ("marker", "second", "language"),
    [
        ("但是", "但是但是他没有回来。", "zh"),
        ("但是", "“但是他没有回来”了。", "zh"),
        ("但", "但是他没有回来。", "zh"),
        ("but", "But but nobody came back.", "en"),
        ("in fact", '"In fact nobody came back."', "en"),
    ],
)
def test_a_connective_that_stays_would_give_the_label_away(marker: str, second: str, language: str) -> None:
    first = {"zh": "他走了很远。", "en": "He went away."}[language]
    made, reasons = run(pairs((first, second, marker)), language)
    assert made == [] and reasons == {"connective that stays in its sentence": 1}


def test_a_word_that_begins_like_a_connective_may_stay() -> None:
    made, _ = run(pairs(("He went away.", "Somebody came back.", "so")), "en")
    assert [name for name, *_ in made] == ["so"]
    assert run(documents(["他走了很远。", "但是但是他没有回来。"]))[1] == {
        "connective that stays in its sentence": 1
    }


def test_most_sentences_cost_a_look_up() -> None:
    """10,000 sentences, about what 1 MB of Chinese has, of which one in twelve opens with a connective."""
    texts = [
        ("但是" if i % 12 == 0 else "") + f"他第{i}天走了很远很远的路，没有回来。" for i in range(10_000)
    ]
    source = documents(*(texts[i : i + 50] for i in range(0, len(texts), 50)))
    times = []
    for _ in range(3):
        start = time.process_time()
        (made,) = discourse_relation.generate(
            source, np.random.default_rng(0), packer=Packer(1, 2, 512), language="zh"
        )
        times.append(time.process_time() - start)
    assert 800 < len(made) < 1_000 and min(times) < 0.1
