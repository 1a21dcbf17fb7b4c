"""The text that data generation is measured on: its size, slices of it, and perturbed copies."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_gen.reading.streams import DamagedFile, Stream, expand_paths
from ernie2.strict import ConfigError

PERTURBED_SHARE = 0.05  # of the CJK characters of a copy of the corpus


@dataclass(frozen=True)
class Text:
    """A corpus and a query log."""

    corpus: tuple[Path, ...]  # text files, documents separated by blank lines
    query_log: tuple[Path, ...]  # query-title files (TSV)
    corpus_mb: float  # of UTF-8, uncompressed, MB of 1e6 bytes
    megabytes: float  # with the query log

    @classmethod
    def of(cls, corpus: Iterable[str | Path], query_log: Iterable[str | Path]) -> "Text":
        """Resolves globs and reads everything once. Raises ConfigError for a file that is missing, damaged or
        empty."""
        named = (("corpus", corpus), ("query log", query_log))
        files = [tuple(path.absolute() for path in expand_paths(paths, what)) for what, paths in named]
        corpus_mb, log_mb = (sum(map(_megabytes, paths)) for paths in files)
        return cls(*files, corpus_mb, corpus_mb + log_mb)


def _megabytes(path: Path) -> float:
    try:
        size = sum(map(len, Stream(path)))
    except (OSError, DamagedFile) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); name another file") from None
    if not size:
        raise ConfigError(f"{path}: is empty; name another file")
    return size / 1e6


def read_text(path: str | Path) -> str:
    """A whole file, plain or compressed."""
    return b"".join(Stream(path)).decode("utf-8", "replace").removeprefix("\ufeff").replace("\r\n", "\n")


def read_documents(corpus: Iterable[str | Path]) -> list[str]:
    """The documents of text files, which blank lines separate."""
    parts = [part.strip("\n") for path in corpus for part in read_text(path).split("\n\n")]
    return [document for document in parts if document]


def write_text(corpus: Sequence[str], query_log: Sequence[str], megabytes: float, folder: str) -> None:
    """Writes corpus_*.txt and query_*.tsv of about `megabytes` MB together: the first documents and rows of
    every file; beyond all there is, all of them again and again, each copy but the first perturbed."""
    pieces = [("corpus", "txt", "", "\n\n", read_documents([path])) for path in corpus]
    for path in query_log:
        header, *rows = read_text(path).splitlines(keepends=True)
        pieces.append(("query", "tsv", header, "", rows))
    copies = megabytes * 1e6 / sum(len("".join(texts).encode()) for *_, texts in pieces)
    Path(folder).mkdir()
    for copy in range(math.ceil(copies)):
        for number, (name, kind, header, end, texts) in enumerate(pieces):
            part = "".join(text + end for text in first(texts, copies - copy))
            part = perturbed(part, PERTURBED_SHARE, (copy, number)) if copy else part
            Path(folder, f"{name}_{copy:03d}_{number:03d}.{kind}").write_text(header + part, encoding="utf-8")


def first(texts: Sequence[str], share: float) -> Sequence[str]:
    """The first texts that make up a share of their characters, at least one."""
    ends = np.cumsum([len(text) for text in texts])
    return texts[: int(np.searchsorted(ends, share * ends[-1])) + 1]


def perturbed(text: str, share: float, seed: Sequence[int]) -> str:
    """The text with this share of its CJK characters replaced by others drawn from it, as likely as they are
    frequent."""
    codes = np.frombuffer(text.encode("utf-32-le"), "<u4").copy()
    places = np.flatnonzero((codes >= 0x4E00) & (codes < 0xA000))
    if len(places):
        rng = np.random.default_rng(seed)
        chosen = places[rng.random(len(places)) < share]
        codes[chosen] = codes[rng.choice(places, len(chosen))]
    return codes.tobytes().decode("utf-32-le")
