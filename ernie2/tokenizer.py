"""Vocabulary and WordPiece with character offsets. No tensors, no paddle.

The `tokenizers` library is the reference and does the work for everything that is a matter of rules: Latin
words, accents, control characters, Hangul (`ernie2.splitting_rules`). What needs no rules is a table look-up:
a CJK character or a punctuation mark is a token of its own wherever it stands. Which characters those are is
not written down here but asked of the library, once, so that the two cannot disagree. A run of other
characters is a word for the library; its answer is remembered."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ernie2.characters import code_points, to_text
from ernie2.config import ConfigError
from ernie2.splitting_rules import DEFAULT_RULES, MAX_WORD_CHARS, make_backend, plain_cjk, single_characters

__all__ = [
    "MAX_WORD_CHARS",
    "SPECIAL_TOKENS",
    "Encoding",
    "Tokenizer",
    "Vocab",
    "make_backend",
    "single_characters",
]

SPECIAL_TOKENS = ("[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]")

_UNUSED = re.compile(r"\[unused\d+\]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_CODE_POINTS = 0x110000
_RUN, _SPACE = -1, -2
_REMEMBERED_WORDS = 1 << 18


class Encoding(NamedTuple):
    """Tokens of a text; T tokens, no special tokens added.

    Attributes:
        ids: int32 (T), rows of the vocabulary.
        starts: int32 (T), first character of each token in the text as it was given.
        ends: int32 (T), one past its last character."""

    ids: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


class Vocab:
    """The tokens and their rows.

    Attributes:
        id_to_token: tokens in the order of their rows, V of them.
        token_to_id: the inverse.
        pad_id, cls_id, sep_id, mask_id, unk_id: rows of the special tokens.
        continuation: bool (V), pieces that continue a word (`##ing`).
        special: bool (V), special tokens and `[unused0]`-like rows: never drawn as a random replacement.
        digest: sha256 of the tokens in order; the same for both file formats."""

    def __init__(self, tokens: list[str], where: str = "vocabulary") -> None:
        """Takes the tokens in order; `where` is for messages. Raises ConfigError where a special token is
        missing."""
        self.id_to_token = list(tokens)
        self.token_to_id = {token: row for row, token in enumerate(self.id_to_token)}
        missing = [token for token in SPECIAL_TOKENS if token not in self.token_to_id]
        if missing:
            raise ConfigError(
                f"{where}: the vocabulary has no {', '.join(missing)}; add a line for each special "
                f"token, or build a vocabulary with `python -m data_gen.vocab`"
            )
        self.pad_id, self.cls_id, self.sep_id, self.mask_id, self.unk_id = (
            self.token_to_id[t] for t in SPECIAL_TOKENS
        )
        self.continuation = np.array(
            [len(t) > 2 and t.startswith("##") for t in self.id_to_token], dtype=bool
        )
        self.special = np.array(
            [
                t[:1] == "[" and (t in SPECIAL_TOKENS or _UNUSED.fullmatch(t) is not None)
                for t in self.id_to_token
            ],
            dtype=bool,
        )
        self.digest = hashlib.sha256("\n".join(self.id_to_token).encode("utf-8")).hexdigest()

    def __len__(self) -> int:
        """Number of tokens V."""
        return len(self.id_to_token)

    @classmethod
    def load(cls, path: str | Path) -> Vocab:
        """Reads one token a line, or `token<TAB>id` with every id from 0 to V-1 given once.

        Raises:
            ConfigError: not there, not UTF-8, a token twice, ids with gaps, no special tokens; names file and
            line."""
        lines = _read_lines(Path(path))
        with_ids = bool(lines) and all("\t" in line for line in lines)
        if not with_ids and len({"", *lines}) == len(lines) + 1:
            return cls(lines, str(path))
        tokens: list[str | None] = [None] * len(lines)
        first_line: dict[str, int] = {}
        for number, line in enumerate(lines, 1):
            token, row = line, number - 1
            if with_ids:
                token, _, digits = line.rpartition("\t")
                row = int(digits) if digits.isascii() and digits.isdigit() else -1
            if not token:
                raise ConfigError(f"{path}:{number}: empty line; a vocabulary has one token on every line")
            if token in first_line:
                raise ConfigError(
                    f"{path}:{number}: token {token!r} is in line {first_line[token]} too; remove one"
                )
            if not 0 <= row < len(lines) or tokens[row] is not None:
                raise ConfigError(
                    f"{path}:{number}: id {digits!r}; the ids of {len(lines)} tokens must be 0 to "
                    f"{len(lines) - 1}, each once"
                )
            first_line[token], tokens[row] = number, token
        return cls(tokens, str(path))


def _read_lines(path: Path) -> list[str]:
    """Lines of a UTF-8 file, split at line feeds only: other separators may be tokens themselves."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot read the vocabulary ({error.strerror}); check model.vocab_file, or build "
            f"one with `python -m data_gen.vocab`"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}; save the vocabulary as UTF-8") from None
    lines = text.split("\n")
    if "\r" in text:
        lines = [line.removesuffix("\r") for line in lines]
    return lines[:-1] if lines and not lines[-1] else lines


class _WordStore:
    """The library's answers, one row a word; tokens lie end to end in one array, for gathering without a
    loop."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.first = np.zeros(1 << 10, dtype=np.int64)
        self.size = np.zeros(1 << 10, dtype=np.int64)
        self.tokens = np.zeros((3, 1 << 12), dtype=np.int32)
        self.used = 0

    def add(self, words: list[str], sizes: np.ndarray, tokens: np.ndarray) -> None:
        """Appends new words: tokens of each, int (words), and their ids, starts, ends in the word, int (3,
        total)."""
        row, stop = len(self.rows), self.used + tokens.shape[1]
        last = row + len(words)
        if last > len(self.first):
            self.first, self.size = np.resize(self.first, 2 * last), np.resize(self.size, 2 * last)
        if stop > self.tokens.shape[1]:
            grown = np.zeros((3, 2 * stop), dtype=np.int32)
            grown[:, : self.used] = self.tokens[:, : self.used]
            self.tokens = grown
        self.size[row:last] = sizes
        self.first[row:last] = self.used + np.cumsum(sizes) - sizes
        self.tokens[:, self.used : stop] = tokens
        self.rows.update(zip(words, range(row, last)))
        self.used = stop

    def gather(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens of the words `rows` end to end, (3, total), and how many each word has."""
        sizes = self.size[rows]
        ends = np.cumsum(sizes)
        return self.tokens[:, np.repeat(self.first[rows] - ends + sizes, sizes) + np.arange(ends[-1])], sizes


class Tokenizer:
    """BERT's normalisation, splitting and WordPiece; the ids are those of the `tokenizers` library.

    With the rules "ernie" the ids are those of PaddleNLP's ErnieTokenizer, see `ernie2.splitting_rules`.
    Under either, text that spells a special token is text: `[SEP]` in a document becomes `[`, `sep`, `]`,
    where PaddleNLP would make the special token of it."""

    def __init__(self, vocab: Vocab, lower_case: bool = True, rules: str = DEFAULT_RULES) -> None:
        """Makes the tables.

        Args:
            vocab: The vocabulary.
            lower_case: Lower-case and strip accents, as the released vocabularies expect.
            rules: "bert" or "ernie".

        Raises:
            ConfigError: no such rules."""
        self.vocab, self.lower_case, self.rules = vocab, lower_case, rules
        self._backend = make_backend(vocab.token_to_id, lower_case, rules)
        alone, spaces = single_characters(lower_case, rules)
        self._rows = np.full(_CODE_POINTS, _RUN, dtype=np.int32)
        self._rows[spaces] = _SPACE
        plain = plain_cjk()
        self._rows[plain] = [vocab.token_to_id.get(character, vocab.unk_id) for character in to_text(plain)]
        alone = np.setdiff1d(alone, plain, assume_unique=True)
        self._rows[alone] = self._backend.encode(to_text(alone), add_special_tokens=False).ids
        self._words = _WordStore()

    def __reduce__(self) -> tuple:
        """A copy in another process is made from the vocabulary; tables and remembered words stay behind."""
        return _rebuild, (self.vocab.id_to_token, self.lower_case, self.rules)

    def encode(self, text: str) -> Encoding:
        """Tokens of `text` with offsets in its characters. Without a limit on length; nothing is
        truncated."""
        rows = self._rows.take(code_points(text))
        in_run = np.zeros(len(rows) + 2, dtype=np.int8)
        np.equal(rows, _RUN, out=in_run[1:-1].view(bool))
        edges = np.flatnonzero(in_run[1:] != in_run[:-1])
        if len(edges) == 0:
            alone = np.flatnonzero(rows >= 0).astype(np.int32)
            return Encoding(rows[alone], alone, alone + np.int32(1))
        return self._with_runs(text, rows, edges[0::2], edges[1::2])

    def encode_many(self, texts: list[str]) -> list[Encoding]:
        """`encode` of each text, at the cost of one call: short sentences come out several times faster."""
        # A line feed is a space wherever it stands, so the texts cannot touch each other.
        joined = self.encode("\n".join(texts))
        first = np.cumsum([0] + [len(text) + 1 for text in texts])
        at = np.searchsorted(joined.starts, first).tolist()
        return [
            Encoding(joined.ids[a:b], joined.starts[a:b] - shift, joined.ends[a:b] - shift)
            for a, b, shift in zip(at, at[1:], first.astype(np.int32))
        ]

    def _with_runs(self, text: str, rows: np.ndarray, first: np.ndarray, last: np.ndarray) -> Encoding:
        """All tokens of a text in which the runs [first:last) are words for the library; `rows` tells of the
        others."""
        if len(self._words.rows) > _REMEMBERED_WORDS:
            self._words = _WordStore()
        known = self._words.rows
        runs = [text[a:b] for a, b in zip(first.tolist(), last.tolist())]
        words = [*map(known.get, runs)]
        if None in words:
            self._learn([*dict.fromkeys(run for run, row in zip(runs, words) if row is None)])
            words = [*map(known.__getitem__, runs)]
        from_runs, sizes = self._words.gather(np.array(words))
        # One token for each character by itself, as many as it takes for the first of a run, none for all
        # others.
        width = (rows >= 0).astype(np.intp)
        width[first] = sizes
        starts = np.repeat(np.arange(len(rows), dtype=np.int32), width)
        ids, ends = rows.take(starts), starts + np.int32(1)
        at = np.flatnonzero(ids < 0)
        shift = starts[at]
        ids[at], starts[at], ends[at] = from_runs[0], from_runs[1] + shift, from_runs[2] + shift
        return Encoding(ids, starts, ends)

    def _learn(self, words: list[str]) -> None:
        """Asks the library about new words, each once, and remembers what it says."""
        # A lone surrogate cannot be passed on; U+FFFD is what such text decodes to, and is dropped likewise.
        text = "\n".join(words)
        encoded = self._backend.encode(_SURROGATE.sub("\ufffd", text), add_special_tokens=False)
        first = np.cumsum([0] + [len(word) + 1 for word in words])
        tokens = np.empty((3, len(encoded.ids)), dtype=np.int32)
        tokens[0], tokens[1:] = encoded.ids, np.array(encoded.offsets, dtype=np.int32).reshape(-1, 2).T
        edges = np.searchsorted(tokens[1], first)
        sizes = np.diff(edges)
        tokens[1:] -= np.repeat(first[:-1], sizes).astype(np.int32)
        self._words.add(words, sizes, tokens)

    def tokenize(self, text: str) -> list[str]:
        """The tokens themselves."""
        return [self.vocab.id_to_token[row] for row in self.encode(text).ids.tolist()]

    def decode(self, ids: np.ndarray | list[int]) -> str:
        """Readable text: pieces joined, spaces between Latin words only; without [PAD], with other special
        tokens."""
        text = ""
        for row in np.asarray(ids, dtype=np.int64).tolist():
            token = self.vocab.id_to_token[row]
            if row == self.vocab.pad_id:
                continue
            if self.vocab.continuation[row]:
                text += token[2:]
                continue
            text += (
                " " + token if text and _needs_space(text, token, bool(self.vocab.special[row])) else token
            )
        return text


def _needs_space(text: str, token: str, special: bool) -> bool:
    """Whether a space stands before `token` when it follows `text`."""
    left, right = text[-1], token[0]
    if special or text.endswith(("[CLS]", "[SEP]", "[MASK]", "[UNK]")):
        return True
    if ord(left) >= 0x2E80 or ord(right) >= 0x2E80:
        return False
    return right not in ".,:;!?%)]}'’”…" and left not in "([{$#'‘“’"


def _rebuild(tokens: list[str], lower_case: bool, rules: str) -> Tokenizer:
    return Tokenizer(Vocab(tokens), lower_case, rules)
