"""Parts of data generation, measured within one process: python -m benchmarks.datagen_parts NAME ARGUMENTS RESULT.

ARGUMENTS is a JSON object, RESULT the JSON file to write. `benchmarks.datagen` calls this; every part has a process of its
own, so that none warms another and none counts for the memory of what is measured.
"""

from __future__ import annotations

import csv
import json
import logging
import random
import re
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.datagen_inputs import documents_of, read_text, slice_documents, write_large
from ernie2.strict import cli
from ernie2.tokenizer import Tokenizer, Vocab

BLOCK_BYTES = 1_000_000
FEWEST_ROUNDS = 15
"""Repetitions of what takes a second, where two figures that are nearly alike are compared."""
_CJK_WORD = re.compile("[\u4e00-\u9fff]{2,10}")


def cut(corpus: Sequence[str], query_log: Sequence[str]) -> dict[str, Any]:
    """jieba.cut alone over all text, line by line: seconds of the loop, without import and dictionary."""
    import jieba

    jieba.setLogLevel(logging.WARNING)
    jieba.initialize()
    lines = [line for path in corpus for line in read_text(path).splitlines() if line]
    for path in query_log:
        for row in csv.reader(read_text(path).splitlines()[1:], delimiter="\t", quoting=csv.QUOTE_NONE):
            lines += row[:2]
    begin, words = time.perf_counter(), 0
    for line in lines:
        for _ in jieba.cut(line):
            words += 1
    return {"seconds": time.perf_counter() - begin, "words": words}


def blocks_of(corpus: Sequence[str]) -> Iterator[str]:
    """The text of the corpus, parted at line ends into blocks of about BLOCK_BYTES."""
    lines, size = [], 0
    for path in corpus:
        for line in read_text(path).splitlines():
            lines.append(line)
            size += len(line.encode("utf-8", "replace")) + 1
            if size >= BLOCK_BYTES:
                yield "\n".join(lines)
                lines, size = [], 0
    if lines:
        yield "\n".join(lines)


def bytes_of(texts: Sequence[str]) -> int:
    """UTF-8 bytes."""
    return sum(len(text.encode("utf-8", "replace")) for text in texts)


def tokens(corpus: Sequence[str], vocab: str, slice_bytes: int) -> dict[str, Any]:
    """Rates (MB/s) of tokenisation, sentence splitting and segmentation alone, each with nothing remembered before; and of
    PaddleNLP's ErnieTokenizer, line by line, on a slice."""
    from data_gen.text.segmenters import load_segmenter
    from data_gen.text.sentences import sentence_spans

    blocks = list(blocks_of(corpus))
    tokenizer, segmenter = Tokenizer(Vocab.load(vocab)), load_segmenter("auto")
    for load in (tokenizer.encode, segmenter.stops, sentence_spans):  # tables, but no word of the text
        load("预备。")
    found: dict[str, Any] = {"segmenter": f"{segmenter.name} {segmenter.version}"}
    steps = {"tokens": tokenizer.encode, "sentences": sentence_spans, "segmentation": segmenter.stops}
    for name, step in steps.items():
        begin = time.perf_counter()
        for block in blocks:
            step(block)
        found[name] = bytes_of(blocks) / 1e6 / (time.perf_counter() - begin)
    peer = ernie_tokenizer(vocab)
    if isinstance(peer, str):
        return {**found, "peer_error": peer}
    lines = [line for text in slice_documents([*map(Path, corpus)], slice_bytes) for line in text.splitlines()]
    begin = time.perf_counter()
    for line in lines:
        peer.convert_tokens_to_ids(peer.tokenize(line))
    return {**found, "peer": bytes_of(lines) / 1e6 / (time.perf_counter() - begin)}


def ernie_tokenizer(vocab: str) -> Any:
    """PaddleNLP's ErnieTokenizer with a vocabulary written as it wants it; or, as text, why there is none."""
    import tempfile

    try:
        from paddlenlp.transformers import ErnieTokenizer
    except ImportError as error:
        return f"paddlenlp cannot be imported: {error}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.txt"
        path.write_text("\n".join(Vocab.load(vocab).id_to_token) + "\n", encoding="utf-8")
        return ErnieTokenizer(str(path))


def same_tokens(corpus: Sequence[str], vocab: str) -> dict[str, Any]:
    """Share of the lines of the corpus that become the same ids as by PaddleNLP's ErnieTokenizer, under each set of rules."""
    from ernie2.splitting_rules import RULES
    from ernie2.tokenizer import DEFAULT_RULES

    peer = ernie_tokenizer(vocab)
    if isinstance(peer, str):
        return {"peer_error": peer}
    lines = [line for path in corpus for line in read_text(path).splitlines() if line.strip()]
    theirs = [peer.convert_tokens_to_ids(peer.tokenize(line)) for line in lines]
    found: dict[str, Any] = {"lines": len(lines), "default": DEFAULT_RULES, "same": {}, "differing": {}}
    for rules in RULES:
        mine = Tokenizer(Vocab.load(vocab), rules=rules).encode_many(lines)
        differing = [line for line, one, other in zip(lines, mine, theirs, strict=True) if one.ids.tolist() != other]
        found["same"][rules] = 1 - len(differing) / max(len(lines), 1)
        found["differing"][rules] = [line[:60] for line in differing[:3]]
    return found


def same_words(corpus: Sequence[str]) -> dict[str, Any]:
    """Share of all sentences that the default segmenter cuts like jieba."""
    from data_gen.text.segmenters import agreement, load_segmenter
    from data_gen.text.sentences import split_sentences

    sentences = [one for path in corpus for line in read_text(path).splitlines() for one in split_sentences(line)]
    share, differing = agreement(load_segmenter("auto").name, sentences)
    return {"sentences": len(sentences), "same": share, "differing": len(differing), "examples": list(differing[:3])}


def dictionaries(corpus: Sequence[str], vocab: str, entity_dicts: Sequence[str], million: str, megabytes: float,
                 rounds: int) -> dict[str, Any]:
    """What a million dictionary words cost: seconds to load them, and annotation with them over annotation without.

    `million`: the dictionary file, written by `write_million`. Annotation takes documents of `megabytes` and is repeated
    `rounds` times, at least FEWEST_ROUNDS, with and without in turn. Compared is processor time, round by round, as the machine's
    speed changes; the median counts.
    """
    from data_gen.reading.documents import RawDocument
    from data_gen.text.annotate import Annotator

    raws = [RawDocument(f"benchmark:{number}", text) for number, text in
            enumerate(slice_documents([*map(Path, corpus)], round(megabytes * 1e6)))]
    parts, part, size = [], [], 0
    for raw in raws:
        part.append(raw)
        size += len(raw.text.encode("utf-8", "replace"))
        if size >= BLOCK_BYTES or raw is raws[-1]:
            parts, part, size = [*parts, part], [], 0
    annotators, load = {}, {}
    for name, files in (("without", []), ("million", [*entity_dicts, million])):
        begin = time.perf_counter()
        annotators[name] = Annotator(Tokenizer(Vocab.load(vocab)), "zh", files)
        load[name] = time.perf_counter() - begin
    seconds: dict[str, list[float]] = {name: [] for name in annotators}
    for _ in range(max(rounds, FEWEST_ROUNDS)):
        for name, annotator in annotators.items():
            begin = time.process_time()
            for part in parts:
                annotator.documents(part)
                annotator.take_hits()
            seconds[name].append(time.process_time() - begin)
    slower = [with_them / without - 1 for with_them, without in zip(seconds["million"], seconds["without"], strict=True)]
    return {"load_seconds": load["million"] - load["without"], "slower": [statistics.median(slower)],
            "megabytes": bytes_of([raw.text for raw in raws]) / 1e6, "seconds": min(seconds["without"])}


def write_million(corpus: Sequence[str], entity_dicts: Sequence[str], path: str, count: int = 1_000_000) -> dict[str, int]:
    """Writes a dictionary of words that look like names: halves of the given dictionaries' words joined anew, so lengths and
    characters are theirs; without dictionaries, of words of the corpus. Few of them occur in the text, as in any large one.
    """
    words = [line.split()[0] for name in entity_dicts for line in read_text(name).splitlines() if line.strip()]
    if not words:
        words = [word for name in corpus for word in _CJK_WORD.findall(read_text(name))][:200_000]
    words, draw, made = [word for word in words if len(word) > 1], random.Random(1), {}
    for _ in range(4 * count):
        if len(made) >= count or not words:
            break
        one, other = draw.choice(words), draw.choice(words)
        made[one[:(len(one) + 1) // 2] + other[(len(other) + 1) // 2:]] = None
    Path(path).write_text("\n".join(made) + "\n", encoding="utf-8")
    return {"entries": len(made)}


def large(corpus: Sequence[str], query_log: Sequence[str], size: int, folder: str) -> dict[str, int]:
    """See `benchmarks.datagen_inputs.write_large`."""
    return write_large([*map(Path, corpus)], [*map(Path, query_log)], size, Path(folder))


def spaced_words(text: str, out: str) -> dict[str, Any]:
    """Input of Baidu's demo script: a sentence a line, jieba's words parted by spaces, an empty line between documents."""
    import jieba

    jieba.setLogLevel(logging.WARNING)
    with Path(out).open("w", encoding="utf-8") as file:
        for document in documents_of(read_text(text)):
            for sentence in re.findall("[^。！？\n]+[。！？]*", document):
                file.write(" ".join(jieba.cut(sentence)) + "\n")
            file.write("\n")
    return {}


def stages(recipe: str, megabytes: float) -> dict[str, Any]:
    """See `benchmarks.datagen_stages`."""
    from benchmarks.datagen_stages import time_stages

    return time_stages(Path(recipe), megabytes)


PARTS = {part.__name__: part for part in (cut, tokens, same_tokens, same_words, dictionaries, write_million, large, spaced_words,
                                          stages)}


@cli
def main(argv: Sequence[str]) -> int:
    """Runs one part."""
    name, arguments, result = argv
    Path(result).write_text(json.dumps(PARTS[name](**json.loads(arguments)), ensure_ascii=False), encoding="utf-8")
    return 0


if __name__ == "__main__":
    main()
