"""`python -m data_gen.vocab CORPUS... --size N --out vocab.txt`: builds a vocabulary from text.

It holds the special tokens, then CJK characters and punctuation marks by frequency, then the WordPiece pieces
of all other words, learnt by the `tokenizers` library. Reads what `data_gen` reads: documents, and query logs
(.tsv). The same text gives the same file, byte for byte."""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from data_gen.reading.documents import RejectCounter, TextOptions, expand_paths, parse
from data_gen.reading.formats import read_head
from data_gen.reading.pieces import Piece, read_pieces
from data_gen.reading.streams import Stream, base_name
from ernie2.characters import code_points
from ernie2.config import ConfigError, cli
from ernie2.disk import as_umask_says
from ernie2.tokenizer import MAX_WORD_CHARS, SPECIAL_TOKENS, Vocab, make_backend, single_characters

MIN_SIZE = 100
PIECE_SHARE = {"zh": 0.2, "en": 0.9}
"""Share of the vocabulary kept for the pieces of words; what characters leave of the rest goes to them as
well.
"""
MAX_DISTINCT_WORDS = 4_000_000
"""Beyond this many the rarer half is forgotten, so that memory stays bounded; at the same places every time.
"""
JOINED_CHARS = 400_000
"""Characters counted at a time."""
MAX_TRAINED_WORDS = 5_000_000
"""Counts are scaled down to about this many running words for the trainer: it takes text, not counts."""


@dataclass
class Counts:
    """What a corpus holds, after normalisation.

    Attributes:
        characters: CJK characters and punctuation marks, each a token by itself -> occurrences.
        words: everything else, split as the tokenizer does -> occurrences.
        size: Characters of text read."""

    characters: Counter[str]
    words: Counter[str]
    size: int


@dataclass(frozen=True)
class VocabReport:
    """What was built: tokens in the file, of which characters and pieces; tokens of the corpus, share that is
    [UNK]."""

    size: int
    characters: int
    pieces: int
    corpus_tokens: int
    unknown_rate: float


def build_vocab(
    paths: Iterable[str | Path],
    size: int,
    out: str | Path,
    lower_case: bool = True,
    language: str | None = None,
    options: TextOptions | str | None = None,
    report: Callable[[str], None] | None = None,
) -> VocabReport:
    """Builds a vocabulary of at most `size` tokens and writes it, one token a line, in one step.

    Args:
        paths: Documents, query logs and marked pairs; globs allowed. size: Tokens wanted; a small corpus
        gives fewer. out: File to write. lower_case: Lower-case and strip accents first, as the tokenizer
        will. language: "zh" or "en": how room is shared between characters and pieces; None: by what the text
        is made of. options: How the text is read and cleaned, or its encoding alone. report: Takes lines of
        progress.

    Raises:
        ConfigError: unusable input, a size too small."""
    say = report or (lambda _line: None)
    if size < MIN_SIZE:
        raise ConfigError(f"vocabulary size {size}: expected {MIN_SIZE} or more")
    options = TextOptions(encoding=options) if isinstance(options, str) else options or TextOptions()
    counts = count_text(_texts(expand_paths(paths), options, say), lower_case, say)
    chinese = sum(n for c, n in counts.characters.items() if c >= "\u3400") > sum(counts.words.values())
    share = PIECE_SHARE[language or ("zh" if chinese else "en")]
    room = size - len(SPECIAL_TOKENS)
    ranked = sorted(counts.characters, key=lambda c: (-counts.characters[c], c))
    wanted = max(round(room * share), room - len(ranked))
    pieces = learn_pieces(counts.words, wanted)
    characters = ranked[: room - len(pieces)]
    both = len({*characters} & {*pieces})  # a mark like = can be both
    if both:
        pieces = learn_pieces(counts.words, wanted + both)
    tokens = list(dict.fromkeys([*SPECIAL_TOKENS, *characters, *pieces]))[:size]
    if len(tokens) == len(SPECIAL_TOKENS):
        raise ConfigError(f"{out}: the input holds no text to make a vocabulary of; nothing was written")
    write_lines(Path(out), tokens)
    total, unknown = _unknown(counts, tokens, lower_case)
    count = len(tokens) - len(characters) - len(SPECIAL_TOKENS)
    made = VocabReport(len(tokens), len(characters), count, total, unknown / max(total, 1))
    say(
        f"{out}: {made.size:,} tokens ({made.characters:,} characters, {made.pieces:,} pieces of words); "
        f"{made.unknown_rate:.4%} of the corpus's {made.corpus_tokens:,} tokens are [UNK]"
    )
    if len(tokens) < size:
        say(f"the corpus holds no more: {size:,} tokens were asked for")
    return made


def extend_vocab(
    paths: Iterable[str | Path],
    base: str | Path,
    size: int,
    out: str | Path,
    lower_case: bool = True,
    options: TextOptions | None = None,
    report: Callable[[str], None] | None = None,
) -> VocabReport:
    """Adds to a vocabulary what a corpus needs, up to `size` tokens: characters that it lacks, by frequency,
    then pieces of words. Its own tokens keep their rows, so that `model.init_from` takes their weights.

    Arguments as of `build_vocab`. Raises ConfigError: unusable input, a size that adds nothing."""
    say = report or (lambda _line: None)
    old = Vocab.load(base).id_to_token
    if size <= len(old):
        raise ConfigError(f"--size {size}: {base} has {len(old)} tokens already; name a larger one")
    counts = count_text(_texts(expand_paths(paths), options or TextOptions(), say), lower_case, say)
    room, known = size - len(old), set(old)
    ranked = sorted(counts.characters, key=lambda c: (-counts.characters[c], c))
    characters = [c for c in ranked if c not in known][:room]
    pieces = [piece for piece in learn_pieces(counts.words, room) if piece not in known | {*characters}]
    pieces = pieces[: room - len(characters)]
    tokens = [*old, *characters, *pieces]
    write_lines(Path(out), tokens)
    shares = []
    for some in (old, tokens):
        total, unknown = _unknown(counts, some, lower_case)
        shares.append(unknown / max(total, 1))
    added = f"{len(characters):,} characters and {len(pieces):,} pieces of words"
    unknown_shares = f"[UNK] {shares[0]:.4%} before, {shares[1]:.4%} now"
    say(f"{out}: {len(tokens):,} tokens, {added} more than {base}; {unknown_shares}")
    return VocabReport(len(tokens), len(characters), len(pieces), total, shares[1])


def _texts(files: Sequence[Path], options: TextOptions, say: Callable[[str], None]) -> Iterator[str]:
    """The text of the documents or rows of one piece after the other."""
    rejects = RejectCounter()
    by_source: dict[str, list[Path]] = {}
    for file in files:
        by_source.setdefault(_source(file), []).append(file)
    for source, mine in by_source.items():
        for piece in read_pieces(mine, source, options, rejects):
            yield _text(piece, options, rejects)
    for reason, count in rejects.counts.most_common():
        where, text = rejects.examples[reason][0]
        say(f"left out: {reason}: {count:,}, for example {where}: {text}")


def _source(file: Path) -> str:
    """What a file is input for: its header tells query logs from marked pairs."""
    if not base_name(file).endswith(".tsv"):
        return "documents"
    try:
        stream = Stream(file)
    except OSError:
        return "pairs"
    head, _ = read_head(stream)
    stream.close()
    return "marked_pairs" if head.removeprefix(b"\xef\xbb\xbf").startswith(b"sentence1\t") else "pairs"


def _text(piece: Piece, options: TextOptions, rejects: RejectCounter) -> str:
    items = parse(piece, options, rejects)
    if piece.kind == "pairs":
        return "\n".join(f"{pair.query}\n{pair.title}" for pair in items)
    if piece.kind == "marked_pairs":
        return "\n".join(f"{pair.first}\n{pair.marker}\n{pair.second}" for pair in items)
    return "\n".join(document.text for document in items)


def count_text(texts: Iterable[str], lower_case: bool, say: Callable[[str], None]) -> Counts:
    """Counts characters and words; a line of progress every ten seconds."""
    alone, spaces = single_characters(lower_case)
    kind = np.zeros(0x110000, np.int8)
    kind[alone], kind[spaces] = 1, 2
    seen, runs, size = np.zeros(0x110000, np.int64), Counter(), 0
    started = last = time.monotonic()
    for text in _joined(texts):
        codes = code_points(text)
        kinds = kind[codes]
        found = np.bincount(codes[kinds == 1])
        seen[: len(found)] += found
        edges = np.flatnonzero(np.diff((kinds == 0).astype(np.int8), prepend=0, append=0)).tolist()
        runs.update([text[a:b] for a, b in zip(edges[0::2], edges[1::2], strict=True)])
        if len(runs) > MAX_DISTINCT_WORDS:
            floor = sorted(runs.values())[len(runs) // 2]
            runs = Counter({run: n for run, n in runs.items() if n > floor})
        size += len(text)
        if time.monotonic() - last > 10:
            last = time.monotonic()
            say(
                f"{size / 1e6:.1f} million characters read, {size / 1e6 / (last - started):.1f} million a "
                "second"
            )
    return _normalised(seen, runs, size, lower_case)


def _joined(texts: Iterable[str]) -> Iterator[str]:
    """Several texts at a time: enough to make the overhead of arrays vanish."""
    part, size = [], 0
    for text in texts:
        part.append(text)
        size += len(text)
        if size >= JOINED_CHARS:
            yield "\n".join(part)
            part, size = [], 0
    yield "\n".join(part)


def _normalised(seen: np.ndarray, runs: Counter[str], size: int, lower_case: bool) -> Counts:
    """Characters and words as the tokenizer will see them."""
    backend = make_backend({"[UNK]": 0}, lower_case)
    normalise, split = backend.normalizer.normalize_str, backend.pre_tokenizer.pre_tokenize_str
    characters, words = Counter(), Counter()
    for code in np.flatnonzero(seen).tolist():
        characters[normalise(chr(code)).strip()] += int(seen[code])
    for run, count in runs.items():
        for word, _ in split(normalise(run)):
            # A character of the rarer CJK planes is a word by itself as well.
            (characters if len(word) == 1 and not word.isascii() and word >= "\u3400" else words)[word] += (
                count
            )
    return Counts(characters, words, size)


def learn_pieces(words: Counter[str], room: int) -> list[str]:
    """At most `room` WordPiece pieces: first the letters, alone and within a word (`a`, `##a`), then longer
    pieces.

    The library numbers the letters in the order of a hash table, which would make ties come out at random;
    given to it beforehand, sorted, they keep their numbers."""
    usable = sorted(word for word in words if len(word) <= MAX_WORD_CHARS)
    forms: Counter[str] = Counter()
    for word in usable:
        forms[word[0]] += words[word]
        for letter in word[1:]:
            forms["##" + letter] += words[word]
    letters = sorted(sorted(forms, key=lambda form: (-forms[form], form))[: max(room // 2, 1)])
    kept = frozenset(letters)
    usable = [
        word for word in usable if word[0] in kept and all("##" + letter in kept for letter in word[1:])
    ]
    scale = max(1, -(-sum(words[word] for word in usable) // MAX_TRAINED_WORDS))
    model = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    model.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=room, min_frequency=2, show_progress=False, special_tokens=letters
    )
    model.train_from_iterator((" ".join([word] * (-(-words[word] // scale))) for word in usable), trainer)
    learnt = model.get_vocab()
    return sorted(learnt, key=learnt.__getitem__)[:room]


def _unknown(counts: Counts, tokens: Sequence[str], lower_case: bool) -> tuple[int, int]:
    """Tokens of the corpus, and how many of them are [UNK]."""
    known = set(tokens)
    total = sum(counts.characters.values())
    unknown = sum(n for character, n in counts.characters.items() if character not in known)
    backend = make_backend({token: row for row, token in enumerate(tokens)}, lower_case)
    unk = tokens.index("[UNK]")
    words = iter(counts.words.items())
    while batch := list(itertools.islice(words, 10_000)):
        encoded = backend.encode_batch([word for word, _ in batch], add_special_tokens=False)
        total += sum(n * len(one.ids) for one, (_, n) in zip(encoded, batch, strict=True))
        unknown += sum(n * one.ids.count(unk) for one, (_, n) in zip(encoded, batch, strict=True))
    return total, unknown


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """Writes a UTF-8 file in one step: all of it or nothing. Raises ConfigError where it cannot be
    written."""
    if path.is_dir():
        raise ConfigError(f"{path}: a folder; name a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); name another file") from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write("".join(f"{line}\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
        as_umask_says(part)
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


@cli
def main(argv: Sequence[str]) -> int:
    """Builds a vocabulary from a corpus."""
    parser = argparse.ArgumentParser(prog="python -m data_gen.vocab", description=main.__doc__)
    parser.add_argument(
        "corpus",
        nargs="+",
        help="documents (.txt, .jsonl, WikiExtractor), query logs and marked pairs "
        "(.tsv), each also .gz, .bz2, .zst; globs and folders",
    )
    parser.add_argument("--size", type=int, required=True, help="number of tokens, special tokens included")
    parser.add_argument("--out", required=True, help="file to write")
    parser.add_argument("--extend", metavar="VOCAB", help="keep these tokens and add what the corpus needs")
    parser.add_argument("--language", choices=("zh", "en"), help="default: by what the text is made of")
    parser.add_argument("--no-lower-case", action="store_true", help="keep case and accents")
    parser.add_argument("--encoding", default="utf-8", help="of the input; default utf-8")
    args = parser.parse_args(argv)
    options, lower_case = TextOptions(encoding=args.encoding), not args.no_lower_case
    if args.extend:
        extend_vocab(args.corpus, args.extend, args.size, args.out, lower_case, options, print)
    else:
        build_vocab(args.corpus, args.size, args.out, lower_case, args.language, options, print)
    return 0


if __name__ == "__main__":
    main()
