"""Parts of data generation, each measured in a process of its own, which `benchmarks.harness.call` starts."""

from __future__ import annotations

import csv
import logging
import random
import re
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.datagen_text import bytes_of, documents_of, read_text, slice_documents
from ernie2.tokenizer import Tokenizer, Vocab

BLOCK_BYTES = 1_000_000
FEWEST_ROUNDS = 15  # of what takes a second, where two figures that are nearly alike are compared
_CJK_WORD = re.compile("[\u4e00-\u9fff]{2,10}")


def _jieba() -> Any:
    import jieba

    jieba.setLogLevel(logging.WARNING)
    jieba.initialize()
    return jieba


def cut(corpus: Sequence[str], query_log: Sequence[str]) -> dict[str, Any]:
    """jieba.cut alone over all text, line by line: seconds of the loop, without import and dictionary."""
    jieba = _jieba()
    lines = [line for path in corpus for line in read_text(path).splitlines() if line]
    for path in query_log:
        rows = csv.reader(read_text(path).splitlines()[1:], delimiter="\t", quoting=csv.QUOTE_NONE)
        lines += [text for row in rows for text in row[:2]]
    begin = time.perf_counter()
    words = sum(1 for line in lines for _ in jieba.cut(line))
    return {"seconds": time.perf_counter() - begin, "words": words}


def spaced_words(text: str, out: str) -> bool:
    """Input of Baidu's demo script: a sentence a line, jieba's words with spaces between, an empty line
    between documents."""
    jieba = _jieba()
    with Path(out).open("w", encoding="utf-8") as file:
        for document in documents_of(read_text(text)):
            for sentence in re.findall("[^。！？\n]+[。！？]*", document):
                file.write(" ".join(jieba.cut(sentence)) + "\n")
            file.write("\n")
    return True


def _blocks(documents: Sequence[str]) -> list[str]:
    """Documents joined into blocks of about BLOCK_BYTES."""
    blocks, size = [[]], 0
    for document in documents:
        if size >= BLOCK_BYTES:
            blocks, size = [*blocks, []], 0
        blocks[-1].append(document)
        size += bytes_of(document)
    return ["\n\n".join(block) for block in blocks]


def _ernie_tokenizer(vocab: str) -> Any:
    """PaddleNLP's ErnieTokenizer, text -> ids, with a vocabulary written as it wants it; None where it is not
    installed."""
    import tempfile

    try:
        from paddlenlp.transformers import ErnieTokenizer
    except ImportError:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.txt"
        path.write_text("\n".join(Vocab.load(vocab).id_to_token) + "\n", encoding="utf-8")
        peer = ErnieTokenizer(str(path))
    return lambda line: peer.convert_tokens_to_ids(peer.tokenize(line))


def tokens(corpus: Sequence[str], vocab: str, slice_bytes: float) -> dict[str, Any]:
    """MB/s of tokenisation with nothing remembered before, and of PaddleNLP's tokenizer, line by line, on a
    slice."""
    blocks = _blocks([document for path in corpus for document in documents_of(read_text(path))])
    tokenizer, peer = Tokenizer(Vocab.load(vocab)), _ernie_tokenizer(vocab)
    tokenizer.encode("预备。")  # loads the tables, but no word of the text
    begin = time.perf_counter()
    for block in blocks:
        tokenizer.encode(block)
    found = {"rate": sum(map(bytes_of, blocks)) / 1e6 / (time.perf_counter() - begin)}
    if peer is not None:
        lines = [line for text in slice_documents(corpus, slice_bytes) for line in text.splitlines()]
        begin = time.perf_counter()
        for line in lines:
            peer(line)
        found["peer"] = sum(map(bytes_of, lines)) / 1e6 / (time.perf_counter() - begin)
    return found


def same_tokens(corpus: Sequence[str], vocab: str) -> dict[str, Any]:
    """Share of the corpus's lines that become PaddleNLP's ids, under each set of rules; `same` is empty
    without PaddleNLP."""
    from ernie2.splitting_rules import RULES
    from ernie2.tokenizer import DEFAULT_RULES

    peer = _ernie_tokenizer(vocab)
    lines = [line for path in corpus for line in read_text(path).splitlines() if line.strip()]
    theirs, same = [peer(line) for line in lines] if peer else [], {}
    for rules in RULES if peer else ():
        ours = Tokenizer(Vocab.load(vocab), rules=rules).encode_many(lines)
        alike = [one.ids.tolist() == other for one, other in zip(ours, theirs, strict=True)]
        same[rules] = statistics.fmean(alike)
    return {"lines": len(lines), "default": DEFAULT_RULES, "same": same}


def same_words(corpus: Sequence[str]) -> dict[str, Any]:
    """Share of all sentences that the default segmenter cuts like jieba."""
    from data_gen.text.segmenters import load_segmenter
    from data_gen.text.sentences import split_sentences

    lines = [line for path in corpus for line in read_text(path).splitlines()]
    sentences = [sentence for line in lines for sentence in split_sentences(line)]
    ours, jieba = load_segmenter("auto"), load_segmenter("jieba")
    same = [ours.stops(one).tolist() == jieba.stops(one).tolist() for one in sentences]
    return {"sentences": len(sentences), "same": statistics.fmean(same), "differing": same.count(False)}


def million_words(
    corpus: Sequence[str], entity_dicts: Sequence[str], path: str, count: int = 1_000_000
) -> int:
    """Writes a dictionary of words that look like names: halves of the given dictionaries' words joined
    anew, so lengths and characters are theirs; without dictionaries, of words of the corpus. Few occur in
    the text, as in any large one."""
    words = [
        line.split()[0] for name in entity_dicts for line in read_text(name).splitlines() if line.strip()
    ]
    if not words:
        words = [word for name in corpus for word in _CJK_WORD.findall(read_text(name))][:200_000]
    words, draw, made = [word for word in words if len(word) > 1], random.Random(1), {}
    for _ in range(4 * count if words else 0):
        one, other = draw.choice(words), draw.choice(words)
        made[one[: (len(one) + 1) // 2] + other[(len(other) + 1) // 2 :]] = None
        if len(made) >= count:
            break
    Path(path).write_text("\n".join(made) + "\n", encoding="utf-8")
    return len(made)


def dictionaries(
    corpus: Sequence[str], vocab: str, entity_dicts: Sequence[str], million: str, size: float
) -> dict[str, float]:
    """What a million dictionary words cost: `load_seconds`, and by what share they make annotation `slower`.

    Documents of `size` bytes are annotated FEWEST_ROUNDS times, with and without in turn. Processor time is
    compared round by round, as the machine's speed changes; the median counts."""
    from data_gen.reading.documents import RawDocument
    from data_gen.text.annotate import Annotator

    blocks = _blocks(slice_documents(corpus, size))
    parts = [[RawDocument(f"benchmark:{number}", block)] for number, block in enumerate(blocks)]
    annotators, load, seconds = [], [], [[], []]
    for files in ([], [*entity_dicts, million]):
        begin = time.perf_counter()
        annotators.append(Annotator(Tokenizer(Vocab.load(vocab)), "zh", files))
        load.append(time.perf_counter() - begin)
    for _ in range(FEWEST_ROUNDS):
        for annotator, taken in zip(annotators, seconds, strict=True):
            begin = time.process_time()
            for part in parts:
                annotator.documents(part)
                annotator.take_hits()
            taken.append(time.process_time() - begin)
    slower = [with_them / without - 1 for without, with_them in zip(*seconds, strict=True)]
    return {"load_seconds": load[1] - load[0], "slower": statistics.median(slower)}
