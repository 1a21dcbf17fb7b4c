"""Parts of data generation, each measured in a process of its own, which `benchmarks.harness.call` starts."""

import itertools
import random
import re
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.datagen_text import read_documents, read_text
from ernie2.tokenizer import Tokenizer, Vocab

BLOCK = 500  # documents that are tokenized or annotated at a time: about a megabyte


def words(corpus: Sequence[str], query_log: Sequence[str]) -> dict[str, float]:
    """jieba alone on every sentence and query: seconds, without import and dictionary, and the share of texts
    that the default segmenter cuts alike."""
    import jieba

    from data_gen.text.segmenters import load_segmenter
    from data_gen.text.sentences import split_sentences

    texts = [s for path in corpus for line in read_text(path).splitlines() for s in split_sentences(line)]
    for path in query_log:
        texts += [text for row in read_text(path).splitlines()[1:] for text in row.split("\t")[:2]]
    jieba.initialize()
    ours, seconds, alike = load_segmenter("auto"), 0.0, 0
    for text in texts:
        begin = time.perf_counter()
        found = jieba.lcut(text)
        seconds += time.perf_counter() - begin
        alike += list(itertools.accumulate(map(len, found))) == ours.stops(text).tolist()
    return {"seconds": seconds, "texts": len(texts), "same": alike / len(texts)}


def spaced_words(corpus: Sequence[str], out: str) -> None:
    """Input of Baidu's demo script: a sentence a line, jieba's words with spaces between, an empty line
    between documents."""
    import jieba

    with Path(out).open("w", encoding="utf-8") as file:
        for document in read_documents(corpus):
            for sentence in re.findall("[^。！？\n]+[。！？]*", document):
                file.write(" ".join(jieba.cut(sentence)) + "\n")
            file.write("\n")


def tokens(corpus: Sequence[str], vocab: str) -> dict[str, float]:
    """MB/s of tokenization, block by block, with nothing remembered before."""
    blocks = ["\n\n".join(documents) for documents in _blocks(corpus)]
    tokenizer = Tokenizer(Vocab.load(vocab))
    tokenizer.encode("预备。")  # loads the tables, but no word of the text
    begin = time.perf_counter()
    for block in blocks:
        tokenizer.encode(block)
    return {"rate": _megabytes(blocks) / (time.perf_counter() - begin)}


def paddlenlp_tokens(corpus: Sequence[str], vocab: str) -> dict[str, float]:
    """MB/s of PaddleNLP's ErnieTokenizer, line by line, and the share of lines with the same ids by ours."""
    from paddlenlp.transformers import ErnieTokenizer

    words = Vocab.load(vocab)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "vocab.txt")
        path.write_text("\n".join(words.id_to_token) + "\n", encoding="utf-8")
        theirs = ErnieTokenizer(str(path))
    lines = [line for path in corpus for line in read_text(path).splitlines() if line.strip()]
    begin = time.perf_counter()
    ids = [theirs.convert_tokens_to_ids(theirs.tokenize(line)) for line in lines]
    rate = _megabytes(lines) / (time.perf_counter() - begin)
    ours = Tokenizer(words).encode_many(lines)
    same = [one.ids.tolist() == other for one, other in zip(ours, ids, strict=True)]
    return {"rate": rate, "lines": len(lines), "same": statistics.fmean(same)}


def million(
    corpus: Sequence[str], vocab: str, entity_dicts: Sequence[str], count: int = 1_000_000
) -> dict[str, float]:
    """What a million dictionary words cost: seconds to load, and by what share they make annotation slower.

    Five rounds with and without them in turn. Processor time is compared round by round, as the
    machine's speed changes; the median counts."""
    from data_gen.reading.documents import RawDocument
    from data_gen.text.annotate import Annotator

    without = Annotator(Tokenizer(Vocab.load(vocab)), "zh")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "million.txt")
        path.write_text("\n".join(made_words(corpus, entity_dicts, count)) + "\n", encoding="utf-8")
        begin = time.perf_counter()
        many = Annotator(Tokenizer(Vocab.load(vocab)), "zh", [*entity_dicts, path])
        load = time.perf_counter() - begin
    blocks = [[RawDocument("benchmark", text) for text in block] for block in _blocks(corpus)]

    def seconds(annotator: Annotator) -> float:
        begin = time.process_time()
        for block in blocks:
            annotator.documents(block)
            annotator.take_hits()
        return time.process_time() - begin

    ratios = [seconds(many) / seconds(without) for _ in range(5)]
    return {"load_seconds": load, "slower": statistics.median(ratios) - 1}


def made_words(corpus: Sequence[str], entity_dicts: Sequence[str], count: int) -> list[str]:
    """Words that look like names: halves of dictionary words joined anew, without dictionaries of words of
    the corpus. Few occur in the text, as of any large dictionary."""
    lines = [line for path in entity_dicts for line in read_text(path).splitlines() if line.strip()]
    known = [line.split()[0] for line in lines]
    known = known or re.findall("[\u4e00-\u9fff]{2,10}", "\n".join(map(read_text, corpus)))
    draw, made = random.Random(1), {}
    for _ in range(4 * count):
        one, other = draw.choice(known), draw.choice(known)
        made[one[: (len(one) + 1) // 2] + other[(len(other) + 1) // 2 :]] = None
        if len(made) == count:
            break
    return list(made)


def _blocks(corpus: Sequence[str]) -> Iterator[list[str]]:
    documents = iter(read_documents(corpus))
    return iter(lambda: list(itertools.islice(documents, BLOCK)), [])


def _megabytes(texts: Sequence[str]) -> float:
    return sum(len(text.encode()) for text in texts) / 1e6
