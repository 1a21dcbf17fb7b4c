"""data_gen.text.annotate: a block of documents as one table of tokens, and the views of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_gen.generators.capitalization import capital_labels
from data_gen.reading.documents import RawDocument, RawMarkedPair, RawPair
from data_gen.text.annotate import Annotator
from data_gen.text.tokens import ALL_LEVELS, ENTITY, PHRASE, WORD, Sentence
from ernie2.config import ConfigError
from ernie2.tokenizer import SPECIAL_TOKENS, Tokenizer, Vocab

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
CHARACTERS = (
    "，。、“”！？：；（）.,!?'\"-()%的我是在了北京大学生清华中国人民银行行长周小川发表讲话"
    "经济发展和平常一样财政部门有新书李明天来你好"
)


def capital(sentence: Sentence) -> np.ndarray:
    """int8, the labels of the capitalization task."""
    return capital_labels(sentence.tokens)[sentence.first : sentence.last]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    pieces = [*dict.fromkeys(CHARACTERS), *LETTERS, *("##" + letter for letter in LETTERS)]
    return Tokenizer(Vocab([*SPECIAL_TOKENS, *pieces]))


@pytest.fixture(scope="module")
def plain(tokenizer: Tokenizer) -> Annotator:
    return Annotator(tokenizer)


def dictionary(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def units(sentence: Sentence, level: int) -> str:
    """The sentence with `/` where a unit of the level begins."""
    assert sentence.begins.dtype == np.uint8 and (len(sentence) == 0 or sentence.begins[0] == ALL_LEVELS)
    begins = sentence.starts[1:][sentence.begins[1:] & level > 0].tolist()
    return "/".join(
        sentence.text[a:b].strip() for a, b in zip([0, *begins], [*begins, len(sentence.text)], strict=True)
    )


def of_text(annotator: Annotator, text: str) -> list[Sentence]:
    return annotator.documents([RawDocument("a:1", text)])[0].sentences


def test_documents_are_views_of_one_table(plain: Annotator) -> None:
    texts = ["我是学生。你好！\n“我在。”\nabc Def. 3.14", "清华大学。", "\u200d"]
    documents = plain.documents([RawDocument(f"a:{i}", text) for i, text in enumerate(texts)])
    first, second, empty = documents
    assert [s.text for s in first.sentences] == ["我是学生。", "你好！", "“我在。”", "abc Def.", "3.14"]
    assert first.paragraph_starts == [0, 2, 3] and first.source == "a:0" and not first.dev
    assert [s.text for s in second.sentences] == ["清华大学。"] and second.paragraph_starts == [0]
    assert len(empty.sentences) == 0 and empty.paragraph_starts == []
    tables = {id(sentence.tokens) for document in documents for sentence in document.sentences}
    assert len(tables) == 1
    for sentence in [*first.sentences, *second.sentences]:
        encoded = plain.tokenizer.encode(sentence.text)
        assert (
            sentence.token_ids.tolist() == encoded.ids.tolist()
            and sentence.starts.tolist() == encoded.starts.tolist()
        )
        [alone] = of_text(plain, sentence.text)
        assert (
            alone.begins.tolist() == sentence.begins.tolist()
            and capital(alone).tolist() == capital(sentence).tolist()
        )


def test_words_phrases_and_entities_are_marked(tokenizer: Tokenizer, tmp_path: Path) -> None:
    entity = dictionary(tmp_path / "a.txt", "中国人民银行行长周小川 nr\n")
    phrase = dictionary(tmp_path / "phrase_x.txt", "发表讲话\n")
    annotator = Annotator(tokenizer, "zh", [entity, phrase])
    [sentence] = of_text(annotator, "中国人民银行行长周小川发表讲话。")
    assert units(sentence, ENTITY) == "中国人民银行行长周小川/发表/讲话/。"
    assert units(sentence, PHRASE).endswith("/发表讲话/。") and units(sentence, WORD).endswith(
        "/发表/讲话/。"
    )
    hits = sorted((*annotator.named(number), count) for number, count in annotator.take_hits().items())
    assert (
        hits == [("中国人民银行行长周小川", "entity", 1), ("发表讲话", "phrase", 1)]
        and not annotator.take_hits()
    )


def test_no_unit_reaches_over_the_end_of_a_sentence(tokenizer: Tokenizer, tmp_path: Path) -> None:
    annotator = Annotator(tokenizer, "en", [dictionary(tmp_path / "e.txt", "home. In\n")])
    found = of_text(annotator, "he went home. In spring he saw Tom\nBrown there.")
    assert [units(sentence, ENTITY) for sentence in found] == [
        "he/went/home/.",
        "In/spring/he/saw/Tom",
        "Brown/there/.",
    ]


def test_english_pages_of_a_chinese_corpus_follow_english_rules(plain: Annotator) -> None:
    texts = ["我是学生。abc", "He met Dr. Brown. Old Uncle Tom is here.", "清华大学。", "12 34"]
    documents = plain.documents([RawDocument(f"a:{i}", text) for i, text in enumerate(texts)])
    assert [document.language for document in documents] == ["zh", "en", "zh", "zh"]
    assert [[s.text for s in document.sentences] for document in documents] == [
        ["我是学生。", "abc"],
        ["He met Dr. Brown.", "Old Uncle Tom is here."],
        ["清华大学。"],
        ["12 34"],
    ]
    assert units(documents[2].sentences[0], WORD) == "清华大学/。"
    assert documents[1].sentences[0].tokens is documents[2].sentences[0].tokens
    assert (
        capital(documents[1].sentences[1]).tolist()[0] == 1
        and capital(documents[2].sentences[0]).tolist() == [-100] * 5
    )
    alone = of_text(plain, texts[1])
    assert [s.begins.tolist() for s in alone] == [s.begins.tolist() for s in documents[1].sentences]


def test_capital_is_taken_before_lower_casing(plain: Annotator) -> None:
    sentence = plain.pairs([RawPair("q:1", "我是Ab，cD和3D、Éa x 。12", "x", 0)])[0].query
    labels = zip(sentence.starts.tolist(), capital(sentence).tolist(), strict=True)
    words = {sentence.text[start:]: label for start, label in labels}
    expected = {
        "我": -100,
        "A": 1,
        "b": 1,
        "，": -100,
        "c": 0,
        "D和": 0,
        "3": 0,
        "É": 1,
        "x": 0,
        "。": -100,
        "12": -100,
    }
    assert capital(sentence).dtype == np.int8
    for begin, label in expected.items():
        assert next(value for text, value in words.items() if text.startswith(begin)) == label, begin


def test_pairs_are_one_sentence_each(plain: Annotator) -> None:
    raws = [RawPair("q:2", "北京大学。你好", "我在\n北京 大学", 1), RawPair("q:3", "\u200d", "你好", 0)]
    first, second = plain.pairs(raws, dev=True)
    assert (first.source, first.label, first.dev) == ("q:2", 1, True)
    assert units(first.query, WORD) == "北京大学/。/你好" and units(first.title, WORD) == "我/在/北京/大学"
    assert len(second.query) == 0 and second.title.text == "你好"
    [marked] = plain.pairs([RawMarkedPair("m:1", "你好。", "我在。", "但是")])
    assert (marked.query.text, marked.title.text, marked.label, marked.dev) == (
        "你好。",
        "我在。",
        "但是",
        False,
    )
    assert plain.pairs([]) == []


@pytest.mark.parametrize("text", ["好" * 100_000, "a" * 200_000, "的，" * 60_000])
def test_endless_sentences_are_cut_and_noted(tokenizer: Tokenizer, text: str) -> None:
    annotator = Annotator(tokenizer)
    found = of_text(annotator, text)
    assert (
        text.startswith("aa") or "".join(sentence.text for sentence in found) == text
    )  # a long word is one [UNK]
    assert max(len(sentence) for sentence in found) <= 2_000
    assert annotator.rejects.notes == {"long_sentence": 1} and annotator.rejects.total == 0


def test_cut_keeps_units_whole(tokenizer: Tokenizer, tmp_path: Path) -> None:
    names = dictionary(tmp_path / "d.txt", "清华大学的\n")
    [_, sentence] = of_text(Annotator(tokenizer, "zh", [names]), "你好。我在 清华大学的北京大学，Abc。")
    assert units(sentence, ENTITY) == "我/在/清华大学的/北京大学/，/Abc/。"
    for start in range(len(sentence)):
        for stop in range(start, len(sentence) + 1):
            part = sentence.cut(start, stop)
            assert len(part) <= stop - start and (len(part) or start == stop)
            if len(part):
                first = sentence.text.index(part.text, sentence.starts[start])
                begin = sentence.starts.tolist().index(first)
                assert sentence.token_ids[begin : begin + len(part)].tolist() == part.token_ids.tolist()
                assert (sentence.starts[begin : begin + len(part)] - first).tolist() == part.starts.tolist()
    assert sentence.cut(0, 4).text.strip() == "我在" and sentence.cut(3, 11).text == "北京大学"
    assert sentence.cut(3, 6).text == "华大学", "nothing whole lies inside: taken as it is"
    assert sentence.cut(2, 10**9).text == "清华大学的北京大学，Abc。"
    assert len(sentence.cut(5, 5)) == 0 and sentence.cut(0, len(sentence)).text == sentence.text


def test_mistakes_are_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="dictionary .*nowhere"):
        Annotator(tokenizer, "zh", [tmp_path / "nowhere.txt"])
    with pytest.raises(ConfigError, match="data.language"):
        Annotator(tokenizer, "fr")
    with pytest.raises(ConfigError, match="data.segmenter"):
        Annotator(tokenizer, "zh", segmenter="lac")
