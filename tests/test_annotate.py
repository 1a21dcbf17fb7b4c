"""data_gen.annotate, words and dictionaries: units, casing, cutting, dictionaries."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest

from data_gen.annotate import MAX_SENTENCE_CHARS, Annotator, Sentence
from data_gen.dictionaries import jieba_segmenter, load_entries
from data_gen.documents import RawDocument, RawPair
from ernie2.config import ConfigError
from ernie2.tokenizer import SPECIAL_TOKENS, Tokenizer, Vocab

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
CHARACTERS = ("，。、“”！？：；（）.,!?'\"-()%的我是在了北京大学生清华中国人民银行行长周小川发表讲话"
              "经济发展和平常一样财政部门有新书李明天来")


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


def units(sentence: Sentence, level: str) -> str:
    """The sentence with `/` where a unit of the level begins; the arrays are checked on the way."""
    ids = getattr(sentence, f"{level}_ids")
    assert ids.dtype == np.int16 and len(ids) == len(sentence) and (not len(ids) or ids[0] == 0)
    assert set(np.diff(ids).tolist()) <= {0, 1}
    begins = sentence.starts[1:][np.diff(ids) == 1].tolist()
    ends = [*begins, len(sentence.text)]
    return "/".join(sentence.text[a:b].strip() for a, b in zip([0, *begins], ends, strict=True))


def test_words_are_jiebas(plain: Annotator) -> None:
    sentence = plain.sentence("我在北京大学，发表讲话。")
    assert units(sentence, "word") == "我/在/北京大学/，/发表/讲话/。"
    assert units(sentence, "word") == "/".join(jieba_segmenter()[0].lcut(sentence.text))
    assert sentence.token_ids.dtype == sentence.starts.dtype == np.int32
    assert sentence.token_ids.tolist() == plain.tokenizer.encode(sentence.text).ids.tolist()


def test_pieces_of_a_word_stay_together(plain: Annotator) -> None:
    """café is two words to jieba, 3.14 three tokens; spaces belong to nobody."""
    assert units(plain.sentence("café是 abc-de 3.14%"), "word") == "café/是/abc/-/de/3.14%"


def test_noun_phrases(plain: Annotator) -> None:
    sentence = plain.sentence("我是经济学生，有新书。")
    words, phrases = units(sentence, "word"), units(sentence, "phrase")
    assert words == "我/是/经济/学生/，/有/新书/。" or words == "我/是/经济/学生/，/有/新/书/。"
    assert phrases == "我/是/经济学生/，/有/新书/。"
    assert units(sentence, "entity") == words


def test_noun_phrases_have_a_limit(plain: Annotator) -> None:
    for phrase in units(plain.sentence("经济学生" * 10), "phrase").split("/"):
        assert len(phrase) <= 8


def test_dictionary_entries_join_and_cut_words(tokenizer: Tokenizer, tmp_path: Path) -> None:
    entity = dictionary(tmp_path / "a.txt", "中国人民银行行长周小川 nr\n")
    phrase = dictionary(tmp_path / "phrase_x.txt", "发表讲话\n")
    sentence = Annotator(tokenizer, "zh", [entity, phrase]).sentence("中国人民银行行长周小川发表讲话。")
    assert units(sentence, "entity") == "中国人民银行行长周小川/发表/讲话/。"
    assert units(sentence, "phrase").endswith("/发表讲话/。") and units(sentence, "word").endswith("/发表/讲话/。")


def test_longest_leftmost_and_entity_first(tokenizer: Tokenizer, tmp_path: Path) -> None:
    text = "我在清华大学的北京大学生"
    names = dictionary(tmp_path / "d.txt", "清华 ns\n清华大学的 nt\n大学的北京 nt\n")
    found = Annotator(tokenizer, "zh", [names]).sentence(text)
    assert "/清华大学的/" in units(found, "entity")
    both = [dictionary(tmp_path / "phrase_b.txt", "发表讲话\n"), dictionary(tmp_path / "product_b.txt", "发表讲话\n")]
    for paths in (both, both[::-1]):
        found = Annotator(tokenizer, "zh", paths).sentence("我发表讲话。")
        assert units(found, "entity") == "我/发表讲话/。" and units(found, "phrase") == "我/发表/讲话/。"


def test_known_words_are_not_cut_but_guessed_ones_are(tokenizer: Tokenizer, tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    annotator = Annotator(tokenizer, "zh", [dictionary(tmp_path / "d.txt", "财政部\n和平\n李明天\n")])
    sentence = annotator.sentence("财政部门和平常一样")
    assert units(sentence, "entity") == units(sentence, "word")
    # 李明天来: jieba guesses or knows; make it guess the word 天来.
    segmenter = annotator._units["zh"]._jieba
    monkeypatch.setattr(segmenter, "lcut", lambda text: ["李明", "天来", "了"])
    cut = annotator.sentence("李明天来了")
    assert units(cut, "entity") == "李明天/来/了" and units(cut, "word") == "李明/天/来/了"
    monkeypatch.setattr(segmenter, "FREQ", {**segmenter.FREQ, "天来": 3})
    assert units(annotator.sentence("李明天来了"), "entity") == "李明/天来/了"


def test_user_words_of_the_process_do_not_leak_in(plain: Annotator) -> None:
    import jieba

    jieba.add_word("的我是", freq=10 ** 8)
    assert units(plain.sentence("大学的我是学生"), "word") == "大学/的/我/是/学生"


def test_capital_is_taken_before_lower_casing(plain: Annotator) -> None:
    sentence = plain.sentence("我是Ab，cD和3D、Éa x 。12")
    labels = zip(sentence.starts.tolist(), sentence.capital.tolist(), strict=True)
    words = {sentence.text[start:]: label for start, label in labels}
    expected = {"我": -100, "A": 1, "b": 1, "，": -100, "c": 0, "D和": 0, "3": 0, "É": 1, "x": 0, "。": -100,
                "12": -100}
    assert sentence.capital.dtype == np.int8
    for begin, label in expected.items():
        assert next(value for text, value in words.items() if text.startswith(begin)) == label, begin


def test_english_units(tokenizer: Tokenizer, tmp_path: Path) -> None:
    paths = [dictionary(tmp_path / "e.txt", "# names\nNew  York City\tns\nGeneral Motors nt\n"),
             dictionary(tmp_path / "phrase.txt", "in spite of\n")]
    annotator = Annotator(tokenizer, "en", paths)
    text = "In spite of it, the New York City of Old Uncle Tom beat general motors. Mary Ann said I Can't."
    sentence = annotator.sentence(text)
    assert units(sentence, "phrase").startswith("In spite of/it/,/the/New/York/City/of/")
    assert units(sentence, "entity") == ("In/spite/of/it/,/the/New York City/of/Old Uncle Tom/beat/general/motors/."
                                         "/Mary/Ann/said/I/Can/'/t/.")
    assert units(annotator.sentence("THE OLD HOUSE"), "entity") == "THE/OLD/HOUSE"
    assert units(annotator.sentence("unbelievable-ish words"), "word") == "unbelievable/-/ish/words"


def test_english_units_stay_in_their_sentence(tokenizer: Tokenizer, tmp_path: Path) -> None:
    annotator = Annotator(tokenizer, "en", [dictionary(tmp_path / "e.txt", "home. in\n")])
    document = annotator.document(RawDocument("a:1", ["he went home.", "In spring he saw Tom", "Brown there."]))
    found = [units(sentence, "entity") for sentence in document.sentences]
    assert found == ["he/went/home/.", "In/spring/he/saw/Tom", "Brown/there/."]


def test_document(plain: Annotator) -> None:
    raw = RawDocument("a:1", ["我是学生。你好！", "\u200d", "“我在。”", "abc Def. 3.14"])
    document = plain.document(raw, 0.5)
    assert [s.text for s in document.sentences] == ["我是学生。", "你好！", "“我在。”", "abc Def.", "3.14"]
    assert document.paragraph_starts == [0, 2, 3] and document.source == "a:1"
    for sentence in document.sentences:
        alone = plain.sentence(sentence.text)
        for field in ("token_ids", "starts", "word_ids", "phrase_ids", "entity_ids", "capital"):
            mine, other = getattr(sentence, field), getattr(alone, field)
            assert mine.dtype == other.dtype and mine.tolist() == other.tolist(), field
    assert plain.document(RawDocument("b:1", ["\u200d"])).sentences == []


def test_batches_change_nothing(plain: Annotator, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = RawDocument("a:1", ["我在北京大学。经济发展。", "Abc，清华。"] * 30)
    whole = plain.document(raw)
    monkeypatch.setattr("data_gen.annotate.BATCH_CHARS", 7)
    for one, other in zip(whole.sentences, plain.document(raw).sentences, strict=True):
        assert units(one, "word") == units(other, "word") and one.token_ids.tolist() == other.token_ids.tolist()


def test_pair_and_dev(plain: Annotator) -> None:
    pair = plain.pair(RawPair("q:2", "北京大学", "我在\n北京 大学", 1), 1.0)
    assert (pair.source, pair.label, pair.dev) == ("q:2", 1, True)
    assert units(pair.query, "word") == "北京大学" and units(pair.title, "word") == "我/在/北京/大学"
    assert not plain.pair(RawPair("q:2", "北京大学", "x", 0), 0.0).dev


def test_line_feeds_in_a_title_keep_offsets(plain: Annotator) -> None:
    sentence = plain.sentence("我\n在\r\n北京")
    assert [sentence.text[a] for a in sentence.starts] == list("我在北京")


@pytest.mark.parametrize("text", ["好" * 100_000, "a" * 200_000, "的，" * 60_000])
def test_endless_sentences_are_cut_and_noted(tokenizer: Tokenizer, text: str) -> None:
    annotator = Annotator(tokenizer)
    document = annotator.document(RawDocument("a:1", [text]))
    assert "".join(sentence.text for sentence in document.sentences) == text
    assert max(len(sentence) for sentence in document.sentences) <= MAX_SENTENCE_CHARS
    assert annotator.rejects.notes == {"long_sentence": 1} and annotator.rejects.total == 0
    assert len(annotator.sentence(text).text) <= MAX_SENTENCE_CHARS


def test_cut_keeps_units_whole(tokenizer: Tokenizer, tmp_path: Path) -> None:
    names = dictionary(tmp_path / "d.txt", "清华大学的\n")
    sentence = Annotator(tokenizer, "zh", [names]).sentence("我在 清华大学的北京大学，Abc。")
    assert units(sentence, "entity") == "我/在/清华大学的/北京大学/，/Abc/。"
    for start in range(len(sentence)):
        for stop in range(start, len(sentence) + 1):
            part = sentence.cut(start, stop)
            assert len(part) <= stop - start and (len(part) or start == stop)
            if len(part):
                assert {units(part, level)[:1] for level in ("word", "phrase", "entity")} == {part.text[0]}
                first = sentence.text.index(part.text, sentence.starts[start])
                assert first in sentence.starts[start:stop]
                begin = sentence.starts.tolist().index(first)
                assert sentence.token_ids[begin:begin + len(part)].tolist() == part.token_ids.tolist()
                assert (sentence.starts[begin:begin + len(part)] - first).tolist() == part.starts.tolist()
    assert sentence.cut(0, 4).text.strip() == "我在" and sentence.cut(3, 11).text == "北京大学"
    assert sentence.cut(3, 6).text == "华大学", "nothing whole lies inside: taken as it is"
    assert sentence.cut(2, 10 ** 9).text == "清华大学的北京大学，Abc。"
    assert len(sentence.cut(5, 5)) == 0 and sentence.cut(0, len(sentence)).text == sentence.text


def test_annotator_travels_to_other_processes(tokenizer: Tokenizer, tmp_path: Path) -> None:
    annotator = Annotator(tokenizer, "zh", [dictionary(tmp_path / "d.txt", "清华大学的\n")])
    data = pickle.dumps(annotator)
    assert len(data) < 10_000
    copy = pickle.loads(data)
    assert units(copy.sentence("清华大学的"), "entity") == "清华大学的"


def test_dictionary_formats(tmp_path: Path) -> None:
    text = ("\ufeff# comment\n周杰伦\t nr \n清华大学 nt\nred hat\tproduct\n上海 2000 ns\n打酱油 phrase\nC#\nNew York\n"
            "守株待兔\t120\ti\n山\n\n北京 100\r\n")
    path = tmp_path / "person_x.txt.gz"
    path.write_bytes(gzip.compress(text.encode()))
    phrases = {"打酱油", "守株待兔"}
    entities = {"周杰伦", "清华大学", "red hat", "上海", "C#", "New York", "北京"}
    assert load_entries([path]) == dict.fromkeys(phrases, False) | dict.fromkeys(entities, True)
    for name in ("phrase_y.txt", "phrase.txt"):
        found = load_entries([dictionary(tmp_path / name, "打酱油\n周杰伦 nr\n")])
        assert found == {"打酱油": False, "周杰伦": True}
    assert load_entries([]) == {}


@pytest.mark.parametrize(("content", "message"), [
    ("周杰伦\tnr\n清华\tplaces\n", r"d.txt:2: unknown tag 'places'; did you mean 'place'"),
    ("# nothing\n", "no entry"),
])
def test_bad_dictionary_is_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_entries([dictionary(tmp_path / "d.txt", content)])


def test_other_mistakes_are_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="dictionary .*nowhere"):
        Annotator(tokenizer, "zh", [tmp_path / "nowhere.txt"])
    with pytest.raises(ConfigError, match="data.language"):
        Annotator(tokenizer, "fr")
    with pytest.raises(ConfigError, match="data.segmenter"):
        Annotator(tokenizer, "zh", segmenter="lac")
