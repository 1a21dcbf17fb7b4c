"""data_gen.reading.duplicates: near-duplicates are found, others are left alone, quickly and in little
memory."""

from __future__ import annotations

import random
import time
import tracemalloc

import numpy as np
import pytest
from conftest import SHARED

from data_gen.reading.documents import RejectCounter, TextOptions, read_all
from data_gen.reading.duplicates import NGRAM, SIGNATURE, THRESHOLD, duplicates, signatures

RNG = random.Random(11)
WORDS = ["".join(chr(RNG.randrange(0x4E00, 0x5000)) for _ in range(RNG.randrange(1, 4))) for _ in range(2000)]


def text_of(rng: random.Random, words: int) -> str:
    return "".join(rng.choice(WORDS) + rng.choice(["", "", "，", "。\n"]) for _ in range(words))


def ngrams(text: str) -> set[str]:
    kept = "".join(c for c in text.lower() if c.isalnum()) + "\0" * (NGRAM - 1)
    return {kept[n : n + NGRAM] for n in range(len(kept) - NGRAM + 1)}


def jaccard(one: str, other: str) -> float:
    a, b = ngrams(one), ngrams(other)
    return len(a & b) / len(a | b)


def changed(rng: random.Random, text: str, share: float) -> str:
    """A copy in which a share of the characters are replaced, or a part is cut off."""
    if rng.random() < 0.3:
        return text[int(len(text) * share * 2) :]
    return "".join(chr(rng.randrange(0x4E00, 0x5000)) if rng.random() < share / 3 else c for c in text)


def dropped(texts: list[str], block: int = 97) -> list[bool]:
    blocks = [signatures(texts[n : n + block]) for n in range(0, len(texts), block)]
    return np.concatenate(duplicates(blocks)).tolist()


def test_an_estimate_is_near_the_similarity() -> None:
    rng, errors = random.Random(1), []
    for _ in range(400):
        one = text_of(rng, rng.choice([5, 30, 200, 1000]))
        other = changed(rng, one, rng.choice([0, 0.02, 0.1, 0.3, 1]))
        a, b = signatures([one, other])
        errors.append((a == b).mean() - jaccard(one, other))
    assert abs(np.mean(errors)) < 0.01 and np.std(errors) < 0.08


def test_recall_and_precision_on_changed_copies() -> None:
    rng, texts, truth = random.Random(2), [], []
    for _ in range(1500):
        text = text_of(rng, rng.choice([20, 100, 600]))
        copy = changed(rng, text, rng.choice([0, 0.01, 0.03, 0.06, 0.1, 0.2, 0.4]))
        texts += [text, copy]
        truth += [0.0, jaccard(text, copy)]
    found, truth = dropped(texts), np.array(truth)
    share = {
        level: np.mean([f for f, t in zip(found, truth) if low <= t < high])
        for level, (low, high) in {
            "sure": (0.9, 1.1),
            "near": (0.8, 0.9),
            "far": (0.3, 0.65),
            "other": (0.0, 0.3),
        }.items()
    }
    assert share["sure"] > 0.97 and 0.5 < share["near"] and share["far"] < 0.06 and share["other"] == 0
    precision = np.mean([t >= THRESHOLD - 0.1 for f, t in zip(found, truth) if f])
    assert precision > 0.97


def test_the_first_of_a_group_stays_whatever_the_blocks() -> None:
    rng = random.Random(3)
    base = [text_of(rng, 200) for _ in range(5)]
    texts = [changed(rng, base[n % 5], 0.005) for n in range(200)] + base
    for block in (1, 7, 205):
        assert dropped(texts, block) == [False] * 5 + [True] * 200


def test_spelling_of_letters_and_marks_does_not_count() -> None:
    text = "The Quick brown fox 第一，jumps over the lazy dog。" * 3
    same = [text, text.lower(), text.upper().replace(" ", "\n"), text.replace("，", "！") + "…"]
    assert dropped(same) == [False, True, True, True]
    assert (
        dropped(["", "。", " ", "一", "一。", "二", "abc", "abd", "\ud800"])
        == [False] * 4 + [True] + [False] * 4
    )
    assert duplicates([]) == [] and signatures([]).shape == (0, SIGNATURE)
    assert [one.tolist() for one in duplicates([signatures([]), signatures(["a", "a"]), signatures([])])] == [
        [],
        [False, True],
        [],
    ]


def test_a_signature_depends_on_its_text_alone() -> None:
    texts = [text_of(random.Random(n), 50) for n in range(20)] + ["", "x", "𠀀" * 10]
    together = signatures(texts)
    assert together.dtype == np.uint32 and together.shape == (23, SIGNATURE)
    assert all((signatures([text])[0] == row).all() for text, row in zip(texts, together))


def test_many_documents_with_one_beginning_are_no_duplicates() -> None:
    """Text from a mould: half of each document is the same."""
    rng = random.Random(4)
    mould = text_of(rng, 100)
    assert not any(dropped([mould + text_of(rng, 100) for _ in range(300)]))


def test_speed_and_memory() -> None:
    texts = [text_of(random.Random(n % 700), 300) for n in range(1000)]
    size = sum(len(text.encode()) for text in texts)
    signatures(["warm"])
    seconds = []
    for _ in range(3):
        started = time.process_time()
        signatures(texts)
        seconds.append(time.process_time() - started)
    assert size / min(seconds) > 10e6
    count = 200_000
    blocks = [
        np.random.default_rng(n).integers(2**32, size=(1000, SIGNATURE), dtype=np.uint32)
        for n in range(count // 1000)
    ]
    blocks[100] = blocks[0].copy()
    tracemalloc.start()
    started = time.process_time()
    found = duplicates(blocks)
    assert time.process_time() - started < 10 and tracemalloc.get_traced_memory()[1] < 60 * count
    tracemalloc.stop()
    assert found[100].all() and sum(one.sum() for one in found) == 1000


def test_the_shared_corpus_holds_few() -> None:
    corpus = SHARED / "data" / "corpus" / "zh"
    if not corpus.is_dir():
        pytest.skip("no shared corpus")
    texts = [
        d.text
        for d in read_all([corpus / "essays_literature.txt.gz"], "documents", TextOptions(), RejectCounter())
    ]
    found = dropped(texts)
    assert 10 <= sum(found) < 0.04 * len(texts)
