"""The text that is measured on: how large it is, slices of it, and larger corpora made by repeating and perturbing it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_gen.reading.streams import DamagedFile, Stream, expand_paths
from ernie2.strict import ConfigError

FIRST_CJK, BEHIND_CJK = 0x4E00, 0xA000
PERTURBED_SHARE = 0.05
"""Share of the CJK characters that a copy of the corpus has replaced."""
FILE_BYTES = 50_000_000
"""Size of the files of a large corpus."""
ROOM_FACTOR = 15
"""Disk that data generation takes, with the corpus, over the bytes of text: temporary files and shards of five tasks."""


@dataclass(frozen=True)
class Inputs:
    """Corpus and query log.

    Attributes:
        corpus: Text files, documents parted by blank lines.
        query_log: Query-title files (TSV).
        corpus_bytes: Bytes of UTF-8, unpacked.
        log_bytes: The same of the query log.
    """

    corpus: tuple[Path, ...]
    query_log: tuple[Path, ...]
    corpus_bytes: int
    log_bytes: int

    @classmethod
    def of(cls, corpus: Iterable[str], query_log: Iterable[str]) -> Inputs:
        """Resolves globs and reads everything once. Raises ConfigError for a file that is missing, damaged or empty."""
        files, logs = ([path.absolute() for path in expand_paths(paths, what)]
                       for paths, what in ((corpus, "corpus"), (query_log, "query log")))
        sizes = [sum(_size(path) for path in paths) for paths in (files, logs)]
        for what, size in zip(("corpus", "query log"), sizes):
            if not size:
                raise ConfigError(f"{what}: the files are empty; name others")
        return cls(tuple(files), tuple(logs), *sizes)

    @property
    def megabytes(self) -> float:
        """Corpus and query log, MB of 1e6 bytes."""
        return (self.corpus_bytes + self.log_bytes) / 1e6


def _size(path: Path) -> int:
    try:
        return sum(map(len, Stream(path)))
    except (OSError, DamagedFile) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); name another file") from None


def read_text(path: str | Path) -> str:
    """A whole file, plain or compressed."""
    return b"".join(Stream(path)).decode("utf-8", "replace").removeprefix("\ufeff").replace("\r\n", "\n")


def documents_of(text: str) -> list[str]:
    """The documents of a text, which blank lines part."""
    return [document for document in (part.strip("\n") for part in text.split("\n\n")) if document]


def slice_documents(paths: Sequence[Path], size: int) -> list[str]:
    """Whole documents of about `size` bytes in all, from every file in proportion; all of them where there is less."""
    texts = [read_text(path) for path in paths]
    total = sum(len(text.encode("utf-8")) for text in texts)
    chosen = []
    for text in texts:
        room = len(text.encode("utf-8")) * min(size / total, 1.0)
        for document in documents_of(text):
            if room <= 0:
                break
            chosen.append(document)
            room -= len(document.encode("utf-8")) + 2
    return chosen


def write_slice(inputs: Inputs, size: int, folder: Path) -> Inputs:
    """Writes a slice of corpus and query log as plain files, slice.txt and slice.tsv; both in proportion.

    Args:
        inputs: What to take it of.
        size: Bytes of the corpus to take, about.
        folder: Where to write.
    """
    text = "\n\n".join(slice_documents(inputs.corpus, size)) + "\n"
    header, *rows = [line for path in inputs.query_log[:1] for line in read_text(path).splitlines()]
    rows = rows[:max(round(len(rows) * min(size / inputs.corpus_bytes, 1.0)), min(len(rows), 100))]
    sizes = []
    for name, content in (("slice.txt", text), ("slice.tsv", "\n".join([header, *rows]) + "\n")):
        sizes.append((folder / name).write_bytes(content.encode("utf-8")))
    return Inputs((folder / "slice.txt",), (folder / "slice.tsv",), *sizes)


def perturbed(text: str, share: float, seed: Sequence[int]) -> str:
    """The text with CJK characters replaced by others drawn from the text, each as likely as it is frequent there.

    Args:
        text: Any text; what is no CJK character stays.
        share: Share of the CJK characters to replace.
        seed: Of the random numbers; the same seed gives the same text.
    """
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").copy()
    places = np.flatnonzero((codes >= FIRST_CJK) & (codes < BEHIND_CJK))
    if len(places) == 0:
        return text
    rng = np.random.default_rng(seed)
    chosen = places[rng.random(len(places)) < share]
    codes[chosen] = codes[rng.choice(places, len(chosen))]
    return codes.tobytes().decode("utf-32-le", "surrogatepass")


def write_large(corpus: Sequence[Path], query_log: Sequence[Path], size: int, folder: Path, seed: int = 1,
                file_bytes: int = FILE_BYTES) -> dict[str, int]:
    """Writes a corpus and a query log of `size` bytes in all: copies of those given, each but the first perturbed.

    Args:
        corpus: Text files.
        query_log: Query-title files.
        size: Bytes of both together; each keeps its share.
        folder: Where corpus-NNN.txt and query_log.tsv go.
        seed: Of the perturbation.
        file_bytes: A file of the corpus is ended when it is as large as this.

    Returns:
        {"corpus_bytes", "log_bytes", "files"}.
    """
    texts = [read_text(path).strip("\n") + "\n\n" for path in corpus]
    logs = [read_text(path) for path in query_log]
    header = logs[0].splitlines()[0] + "\n"
    rows = "".join(log.partition("\n")[2].rstrip("\n") + "\n" for log in logs if log.splitlines()[0] + "\n" == header)
    share = len(rows.encode("utf-8")) / (len(rows.encode("utf-8")) + sum(len(text.encode("utf-8")) for text in texts))
    with (folder / "query_log.tsv").open("wb") as file:
        log_bytes = file.write(header.encode("utf-8"))
        for data in _copies([rows], round(size * share), b"\n", seed):
            log_bytes += file.write(data)
    corpus_bytes, files, file = 0, 0, None
    for data in _copies(texts, size - log_bytes, b"\n\n", seed):
        if file is None:
            file = (folder / f"corpus-{files:03d}.txt").open("wb")
            files += 1
        corpus_bytes += file.write(data)
        if file.tell() >= file_bytes:
            file.close()
            file = None
    if file is not None:
        file.close()
    return {"corpus_bytes": corpus_bytes, "log_bytes": log_bytes, "files": files}


def _copies(texts: Sequence[str], size: int, ends: bytes, seed: int) -> Iterator[bytes]:
    """The texts again and again, up to `size` bytes; the last is cut where a document or row ends."""
    copy, room = 0, size
    while room > 0:
        for number, text in enumerate(texts):
            data = (perturbed(text, PERTURBED_SHARE, (seed, copy, number)) if copy else text).encode("utf-8", "surrogatepass")
            if len(data) > room:
                last = data[:data.rfind(ends, 0, room) + len(ends)]
                if last.endswith(ends):
                    yield last
                return
            yield data
            room -= len(data)
        copy += 1
