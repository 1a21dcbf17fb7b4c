"""data_gen.text.words: what `find` says of words, phrases and entities, against slow and obvious code that
says the same."""

from __future__ import annotations

import gzip
import itertools
import random
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED

from data_gen.text.dictionaries import KIND_OF_TAG, NO_PHRASE_WORDS, NOUN, Entries, load_entries
from data_gen.text.segmenters import load_segmenter
from data_gen.text.sentences import split_sentences
from data_gen.text.tokens import ENTITY, PHRASE, WORD
from data_gen.text.words import FUNCTION_WORDS, MAX_PHRASE_CHARS, ChineseUnits, EnglishUnits
from ernie2.shards import LEVELS
from ernie2.tokenizer import SPECIAL_TOKENS, Encoding, Tokenizer, Vocab

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
CHARACTERS = (
    "，。、“”！？：；（）.,!?'\"-()%的我是在了北京大学生清华中国人民银行行长周小川发表讲话"
    "经济发展和平常一样财政部门有新书李明天来"
)
Flags = list[set[int]]
Finder = ChineseUnits | EnglishUnits


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    pieces = [*dict.fromkeys(CHARACTERS), *LETTERS, *("##" + letter for letter in LETTERS)]
    return Tokenizer(Vocab([*SPECIAL_TOKENS, *pieces]))


@pytest.fixture(scope="module")
def tags() -> dict[str, str]:
    """jieba's dictionary: word -> tag."""
    import jieba

    lines = Path(jieba.__file__).with_name("dict.txt").read_text(encoding="utf-8").splitlines()
    return {line.split(" ")[0]: line.split(" ")[2] for line in lines}


def chinese(entries: Mapping[str, bool], segmenter: str = "auto") -> ChineseUnits:
    return ChineseUnits(Entries(entries.items()), segmenter)


def english(entries: Mapping[str, bool]) -> EnglishUnits:
    return EnglishUnits(Entries(entries.items()))


def found(finder: Finder, tokenizer: Tokenizer, text: str) -> tuple[np.ndarray, np.ndarray]:
    tokens = tokenizer.encode(text)
    if len(tokens.ids) == 0:
        return np.zeros(0, np.uint8), np.zeros(0, np.int32)
    flags, rows = finder.find(text, tokens, tokenizer.vocab.continuation[tokens.ids])
    assert flags.dtype == np.uint8 and flags.shape == tokens.ids.shape
    return flags, rows


def units(finder: Finder, tokenizer: Tokenizer, text: str, level: int) -> str:
    """The text with `/` where a unit of the level begins."""
    begins = tokenizer.encode(text).starts[found(finder, tokenizer, text)[0] & level > 0].tolist()
    return "/".join(text[a:b].strip() for a, b in zip(begins, [*begins[1:], len(text)]))


def token_flags(begins: Flags, tokens: Encoding, inside: np.ndarray) -> list[int]:
    """Begins of the levels at characters -> flags of tokens: a begin counts for the first token that does not
    lie before it."""
    flags = []
    for number, start in enumerate(tokens.starts.tolist()):
        before = tokens.starts[number - 1] if number else -1
        places = range(before + 1, start + 1)
        flag = sum(
            bit for bit, level in zip((WORD, PHRASE, ENTITY), begins) if any(at in level for at in places)
        )
        flags.append(0 if inside[number] else flag if number else 7)
    return flags


def slow_chinese(  # noqa: C901 - the rules, spelled out
    text: str,
    tokens: Encoding,
    inside: np.ndarray,
    entries: Mapping[str, bool],
    words: list[str],
    tags: Mapping[str, str],
) -> tuple[list[int], Counter[str]]:
    stops = np.cumsum([len(word) for word in words]).tolist()
    allowed = {at: 2 for at in (0, *stops)}
    for word, stop in zip(words, stops):
        for at in range(stop - len(word) + 1, stop) if word not in tags else ():
            allowed[at] = 1
    for first, last, piece in zip(tokens.starts.tolist(), tokens.ends.tolist(), inside):
        for at in range(first if piece else first + 1, last):
            allowed[at] = 0
    matches, at = [], 0
    while at < len(text):
        for size in range(30, 1, -1):
            edges = allowed.get(at, 0), allowed.get(at + size, 0)
            if (
                text[at : at + size] in entries
                and at + size <= len(text)
                and min(edges)
                and (size > 2 or sum(edges) == 4)
            ):
                matches.append((at, at + size))
                at += size - 1
                break
        at += 1
    for first, last in list(matches):
        opens = text[first] in FUNCTION_WORDS and first + 1 in (0, *stops)
        closes = text[last - 1] in FUNCTION_WORDS and last - 1 in (0, *stops)
        if last - first <= 4 and (opens or closes):
            matches.remove((first, last))
    begins: Flags = [{0, *stops} | {at for match in matches for at in match} for _ in range(3)]
    taken = set()
    for first, last in matches:
        is_entity = entries[text[first:last]]
        if is_entity or last - first > 4 or begins[0] & set(range(first + 1, last)):
            taken |= set(range(first, last))
        begins[2 if is_entity else 1] -= set(range(first + 1, last))
    for first, last in slow_noun_phrases(words, tags):
        if not taken & set(range(first, last)):
            begins[1] -= set(range(first + 1, last))
    return token_flags(begins, tokens, inside), Counter(text[first:last] for first, last in matches)


def slow_noun_phrases(words: list[str], tags: Mapping[str, str]) -> list[tuple[int, int]]:
    tags = {word: tag for word, tag in tags.items() if word not in NO_PHRASE_WORDS}
    kinds = [
        "." if tags.get(word) not in KIND_OF_TAG else "n" if KIND_OF_TAG[tags[word]] == NOUN else "m"
        for word in words
    ]
    phrases, word, at = [], 0, 0
    while word < len(words):
        for size in (4, 3, 2, 1):
            run = "".join(words[word : word + size])
            if (
                size == 1
                or re.fullmatch("[mn]+n", "".join(kinds[word : word + size]))
                and len(run) <= MAX_PHRASE_CHARS
                and word + size <= len(words)
            ):
                break
        if size > 1:
            phrases.append((at, at + len(run)))
        word, at = word + size, at + len(run)
    return phrases


def slow_english(
    text: str, tokens: Encoding, inside: np.ndarray, entries: Mapping[str, bool]
) -> tuple[list[int], Counter[str]]:
    flags = np.where(inside, 0, 7)
    first = np.flatnonzero(~inside)
    spans = [(tokens.starts[a], tokens.ends[b - 1]) for a, b in zip(first, [*first[1:], len(inside)])]
    known = {
        is_entity: {
            tuple(re.findall(r"[^\W_]+|[^\w\s]|_", word if is_entity else word.lower())): word
            for word in reversed(entries)
            if entries[word] == is_entity
        }
        for is_entity in (False, True)
    }
    hits: Counter[str] = Counter()
    lines = [text.count("\n", 0, start) for start, _ in spans]
    for _, group in itertools.groupby(range(len(spans)), lines.__getitem__):
        numbers = list(group)
        words = [text[spans[number][0] : spans[number][1]] for number in numbers]
        taken, place = [False] * len(words), 0
        while place < len(words):
            for size in range(min(len(words) - place, 20), 0, -1):
                exact = known[True].get(tuple(words[place : place + size]))
                entry = exact or known[False].get(tuple(word.lower() for word in words[place : place + size]))
                if entry:
                    hits[entry] += 1
                    flags[first[numbers[place + 1 : place + size]]] &= ~(ENTITY if exact else PHRASE)
                    taken[place : place + size] = [True] * size
                    place += size - 1
                    break
            place += 1
        for start, stop in slow_names(words, taken):
            flags[first[numbers[start + 1 : stop]]] &= ~ENTITY
    return flags.tolist(), hits


def slow_names(words: list[str], taken: list[bool]) -> list[tuple[int, int]]:
    cased = [word.lower() != word.upper() for word in words]
    capital = [has and (word[0].isupper() or word[0].istitle()) for has, word in zip(cased, words)]
    if not any(capital) or not any(has and not is_capital for has, is_capital in zip(cased, capital)):
        return []
    names, start = [], 1
    while start < len(words):
        stop = start
        while stop < len(words) and capital[stop] and not taken[stop] and stop - start < 5:
            stop += 1
        if stop - start < 2 or words[start - 1] in set(".!?:…“‘\"'([—-") or words[start] == "I":
            stop = start + 1
        else:
            names.append((start, stop))
        start = stop
    return names


def slow_and_fast(
    finder: Finder, tokenizer: Tokenizer, text: str, entries: Mapping[str, bool], tags: Mapping[str, str]
) -> None:
    """Compares the two."""
    tokens = tokenizer.encode(text)
    arguments = text, tokens, tokenizer.vocab.continuation[tokens.ids], entries
    if isinstance(finder, ChineseUnits):
        edges = [0, *finder.segmenter.stops(text).tolist()]
        words = [text[first:last] for first, last in itertools.pairwise(edges)]
        flags, hits = slow_chinese(*arguments, words, tags)
    else:
        flags, hits = slow_english(*arguments)
    assert found(finder, tokenizer, text)[0].tolist() == flags, ascii(text)
    assert hits_of(finder, tokenizer, text, entries) == hits, ascii(text)


def hits_of(finder: Finder, tokenizer: Tokenizer, text: str, entries: Mapping[str, bool]) -> Counter[str]:
    """Entries found in a text, and how often."""
    words = list(entries)
    return Counter(words[row] for row in found(finder, tokenizer, text)[1].tolist())


@pytest.mark.parametrize("size", [0, 40, 400])
@pytest.mark.parametrize("segmenter", ["rjieba", "jieba"])
def test_chinese_on_random_text(
    size: int, segmenter: str, tokenizer: Tokenizer, tags: dict[str, str]
) -> None:
    """Words, odd characters and parts of words, and dictionaries of what occurs in them."""
    draw = random.Random(size)
    words = [
        *draw.sample(
            sorted(word for word in tags if len(word) > 1 and tags[word] in ("n", "a", "vn", "v", "nr")), 60
        ),
        *CHARACTERS,
        " ",
        "\n",
        "abc",
        "D-E2",
        "3.14%",
        "é",
        "é",
        "각",
        "İ",
        "\u3400",
        "\U00020000",
        "½",
        "ﬁ",
    ]
    texts = ["".join(draw.choices(words, k=draw.randrange(1, 40))) for _ in range(60)]
    joined = "".join(texts)
    entries = {}
    for _ in range(size):
        at = draw.randrange(len(joined) - 8)
        entries[joined[at : at + draw.choice((1, 2, 2, 3, 4, 5, 8))].replace("\n", "")] = draw.random() < 0.5
    entries.pop("", None)
    finder = chinese(entries, segmenter)
    for text in [*texts, "\n".join(texts), " ", "", "\n\n"]:
        slow_and_fast(finder, tokenizer, text, entries, tags)


@pytest.mark.parametrize("size", [0, 40, 400])
def test_english_on_random_text(size: int, tokenizer: Tokenizer) -> None:
    draw = random.Random(size)
    words = [
        "Tom",
        "tom",
        "New",
        "York",
        "City",
        "in",
        "spite",
        "of",
        "the",
        "I",
        "Mary",
        "Ann",
        "McX",
        "3D",
        "café",
        "ÉA",
        "x_y",
        ".",
        ",",
        "“",
        "(",
        "-",
        "!",
        "'s",
        "\n",
        "我",
        "北京",
        "ß",
        "İz",
        "各",
        "각",
        "a" * 120,
    ]
    texts = [" ".join(draw.choices(words, k=draw.randrange(1, 40))) for _ in range(60)]
    entries: dict[str, bool] = {}
    for _ in range(size):
        line = draw.choice(draw.choice(texts).split("\n")).split()
        at = draw.randrange(max(len(line) - 3, 1))
        entry = draw.choice((" ", "  ")).join(line[at : at + draw.randrange(1, 5)])
        # Entries with Chinese characters are not used in English; what is longer in lower case is found by
        # luck only.
        if entry and len(entry) < 100 and not set(entry) & set("我北京各İ"):
            entries[draw.choice((str, str.upper, str.lower))(entry)] = draw.random() < 0.5
    finder = english(entries)
    for text in [*texts, "\n".join(texts), "", "\n"]:
        slow_and_fast(finder, tokenizer, text, entries, {})


def real_text(folder: str, lines: int) -> str:
    sentences = []
    for path in sorted((SHARED / "data" / "corpus" / folder).glob("*.gz")):
        text = gzip.open(path, "rt", encoding="utf-8", newline="\n").read().split("\n")
        for line in random.Random(5).sample(text, min(lines, len(text))):
            sentences += split_sentences(line, folder)
    return "\n".join(sentences)


@pytest.mark.skipif(not SHARED.is_dir(), reason="shared data not present")
@pytest.mark.parametrize("with_entries", [False, True])
def test_real_text(with_entries: bool, tags: dict[str, str]) -> None:
    tokenizer = Tokenizer(Vocab.load(SHARED / "data" / "official" / "vocab.txt"))
    found = load_entries(sorted((SHARED / "data" / "ner").glob("*")) if with_entries else [])
    entries = {found.word(row): bool(is_entity) for row, is_entity in enumerate(found.is_entity)}
    slow_and_fast(ChineseUnits(found, "rjieba"), tokenizer, real_text("zh", 15), entries, tags)
    entries = {"New York": True, "Mr. Knightley": True, "of the": False, "In spite of": False, "the": False}
    entries = entries if with_entries else {}
    slow_and_fast(english(entries), tokenizer, real_text("en", 2), entries, {})


def test_levels_are_those_of_shards() -> None:
    assert [1 << LEVELS.index(level) for level in ("word", "phrase", "entity")] == [WORD, PHRASE, ENTITY]


def test_words_are_jiebas(tokenizer: Tokenizer) -> None:
    finder = chinese({})
    assert units(finder, tokenizer, "我在北京大学，发表讲话。", WORD) == "我/在/北京大学/，/发表/讲话/。"


def test_pieces_of_a_word_stay_together(tokenizer: Tokenizer) -> None:
    """café is two words to jieba, 3.14 three tokens; spaces belong to nobody."""
    assert units(chinese({}), tokenizer, "café是 abc-de 3.14%", WORD) == "café/是/abc/-/de/3.14%"


def test_noun_phrases(tokenizer: Tokenizer) -> None:
    finder = chinese({})
    words = units(finder, tokenizer, "我是经济学生，有新书。", WORD)
    assert (
        words == "我/是/经济/学生/，/有/新书/。" == units(finder, tokenizer, "我是经济学生，有新书。", ENTITY)
    )
    assert units(finder, tokenizer, "我是经济学生，有新书。", PHRASE) == "我/是/经济学生/，/有/新书/。"
    assert max(len(phrase) for phrase in units(finder, tokenizer, "经济学生" * 10, PHRASE).split("/")) == 8


def test_dictionary_entries_join_and_cut_words(tokenizer: Tokenizer) -> None:
    finder = chinese({"中国人民银行行长周小川": True, "发表讲话": False})
    text = "中国人民银行行长周小川发表讲话。"
    assert units(finder, tokenizer, text, ENTITY) == "中国人民银行行长周小川/发表/讲话/。"
    assert units(finder, tokenizer, text, PHRASE).endswith("/发表讲话/。")
    assert units(finder, tokenizer, text, WORD).endswith("/发表/讲话/。")
    assert found(finder, tokenizer, text)[1].tolist() == [0, 1]


def test_longest_leftmost(tokenizer: Tokenizer) -> None:
    finder = chinese({"清华": True, "清华大学的": True, "大学的北京": True})
    assert units(finder, tokenizer, "我在清华大学的北京大学生", ENTITY).startswith("我/在/清华大学的/北京")


def test_known_words_are_not_cut_but_guessed_ones_are(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    finder = chinese({"财政部": True, "和平": True, "李明天": True, "李明": True, "天来": True})
    text = "财政部门和平常一样"
    assert units(finder, tokenizer, text, ENTITY) == units(finder, tokenizer, text, WORD)
    # 明天 is in jieba's dictionary, 天来 is not.
    monkeypatch.setattr(finder.segmenter, "stops", lambda text: np.array([2, 4, 5]), raising=False)
    assert units(finder, tokenizer, "李明天来了", ENTITY) == "李明天/来/了"
    assert units(finder, tokenizer, "李明天来了", WORD) == "李明/天/来/了"
    monkeypatch.setattr(finder.segmenter, "stops", lambda text: np.array([1, 3, 4, 5]))
    assert units(finder, tokenizer, "李明天来了", ENTITY) == "李明天/来/了"
    assert units(finder, tokenizer, "李明天来了", WORD) == "李/明天/来/了"


def test_one_segmenter_serves_all() -> None:
    assert chinese({}).segmenter is chinese({"北京大学": True}, "auto").segmenter is load_segmenter("auto")


def test_english_units(tokenizer: Tokenizer) -> None:
    finder = english({"New  York City": True, "General Motors": True, "in spite of": False, "张三": True})
    text = "In spite of it, the New York City of Old Uncle Tom beat general motors. Mary Ann said I Can't."
    assert units(finder, tokenizer, text, PHRASE).startswith("In spite of/it/,/the/New/York/City/of/")
    assert units(finder, tokenizer, text, ENTITY) == (
        "In/spite/of/it/,/the/New York City/of/Old Uncle Tom/beat/general/motors/./Mary/Ann/said/I/Can/'/t/."
    )
    assert found(finder, tokenizer, text)[1].tolist() == [2, 0]
    assert units(finder, tokenizer, "THE OLD HOUSE", ENTITY) == "THE/OLD/HOUSE"
    assert units(finder, tokenizer, "unbelievable-ish words", WORD) == "unbelievable/-/ish/words"
    assert (
        units(english({}), tokenizer, "he met Tom\nBrown and Tom Brown", ENTITY)
        == "he/met/Tom/Brown/and/Tom Brown"
    )
    assert units(english({"张三": True}), tokenizer, "he met Tom", WORD) == "he/met/Tom"
