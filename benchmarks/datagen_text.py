"""The text that is measured on: how large it is, slices of it, and larger corpora made by repeating and
perturbing it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_gen.reading.streams import DamagedFile, Stream, expand_paths
from ernie2.strict import ConfigError

FIRST_CJK, BEHIND_CJK = 0x4E00, 0xA000
PERTURBED_SHARE = 0.05  # of the CJK characters of a copy of the corpus
FILE_BYTES = 50_000_000  # of the files of a large corpus


@dataclass(frozen=True)
class Text:
    """A corpus and a query log."""

    corpus: tuple[Path, ...]  # text files, documents separated by blank lines
    query_log: tuple[Path, ...]  # query-title files (TSV)
    corpus_bytes: int  # of UTF-8, uncompressed
    log_bytes: int

    @classmethod
    def of(cls, corpus: Iterable[str | Path], query_log: Iterable[str | Path]) -> Text:
        """Resolves globs and reads everything once. Raises ConfigError for a file that is missing, damaged or
        empty."""
        files, sizes = [], []
        for what, paths in (("corpus", corpus), ("query log", query_log)):
            files.append(tuple(path.absolute() for path in expand_paths(paths, what)))
            sizes.append(sum(map(_size, files[-1])))
            if not sizes[-1]:
                raise ConfigError(f"{what}: the files are empty; name others")
        return cls(*files, *sizes)

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


def bytes_of(text: str) -> int:
    """UTF-8 bytes."""
    return len(text.encode("utf-8", "replace"))


def documents_of(text: str) -> list[str]:
    """The documents of a text, which blank lines separate."""
    return [document for document in (part.strip("\n") for part in text.split("\n\n")) if document]


def slice_documents(paths: Sequence[str | Path], size: float) -> list[str]:
    """Whole documents of about `size` bytes in all, from every file in proportion; all of them where there is
    less."""
    texts = [read_text(path) for path in paths]
    share = min(size / sum(map(bytes_of, texts)), 1.0)
    chosen = []
    for text in texts:
        room = bytes_of(text) * share
        for document in documents_of(text):
            if room > 0:
                chosen.append(document)
                room -= bytes_of(document) + 2
    return chosen


def write_slice(text: Text, size: float, folder: Path) -> Text:
    """Writes about `size` bytes of the corpus and as large a share of the query log as plain files."""
    folder.mkdir(exist_ok=True)
    header, *rows = read_text(text.query_log[0]).splitlines()
    rows = rows[: max(round(len(rows) * min(size / text.corpus_bytes, 1.0)), 100)]
    (folder / "slice.txt").write_text(
        "\n\n".join(slice_documents(text.corpus, size)) + "\n", encoding="utf-8"
    )
    (folder / "slice.tsv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return Text.of([folder / "slice.txt"], [folder / "slice.tsv"])


def perturbed(text: str, share: float, seed: Sequence[int]) -> str:
    """The text with this share of its CJK characters replaced by others drawn from it, as likely as they are
    frequent."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").copy()
    places = np.flatnonzero((codes >= FIRST_CJK) & (codes < BEHIND_CJK))
    if len(places):
        rng = np.random.default_rng(seed)
        chosen = places[rng.random(len(places)) < share]
        codes[chosen] = codes[rng.choice(places, len(chosen))]
    return codes.tobytes().decode("utf-32-le", "surrogatepass")


def write_large(corpus: Sequence[str], query_log: Sequence[str], size: int, folder: str) -> dict[str, int]:
    """Writes a corpus and a query log of `size` bytes together: copies of those given, each but the first
    perturbed.

    Args:
        corpus: Text files.
        query_log: Query-title files; those with the first one's columns are used. Both keep their share.
        size: Bytes in all.
        folder: Where corpus-NNN.txt and query_log.tsv go.

    Returns:
        Their sizes: {"corpus_bytes", "log_bytes"}."""
    texts = [read_text(path).strip("\n") + "\n\n" for path in corpus]
    logs = [read_text(path).partition("\n") for path in query_log]
    header = logs[0][0]
    rows = "".join(rows.rstrip("\n") + "\n" for head, _, rows in logs if head == header)
    share = bytes_of(rows) / (bytes_of(rows) + sum(map(bytes_of, texts)))
    with Path(folder, "query_log.tsv").open("wb") as file:
        log_bytes = file.write(f"{header}\n".encode())
        log_bytes += sum(map(file.write, _copies([rows], round(size * share), b"\n")))
    corpus_bytes = 0
    for data in _copies(texts, size - log_bytes, b"\n\n"):
        with Path(folder, f"corpus-{corpus_bytes // FILE_BYTES:03d}.txt").open("ab") as file:
            corpus_bytes += file.write(data)
    return {"corpus_bytes": corpus_bytes, "log_bytes": log_bytes}


def _copies(texts: Sequence[str], size: int, ends: bytes) -> Iterator[bytes]:
    """The texts again and again, up to `size` bytes; the last is cut where a document or row ends."""
    copy = 0
    while True:
        for number, text in enumerate(texts):
            text = perturbed(text, PERTURBED_SHARE, (1, copy, number)) if copy else text
            data = text.encode("utf-8", "surrogatepass")
            if len(data) > size:
                yield data[: data.rfind(ends, 0, size) + len(ends)] if ends in data[:size] else b""
                return
            yield data
            size -= len(data)
        copy += 1
