"""Vocabulary and WordPiece with character offsets. No tensors, no paddle.

The `tokenizers` library is the reference and does the work for everything that is a matter of rules: Latin words,
accents, control characters, Hangul. What needs no rules is a table look-up: a CJK character or a punctuation mark is
a token of its own wherever it stands. Which characters those are is not written down here but asked of the library,
once, so that the two cannot disagree. A run of other characters is a word for the library; its answer is remembered.
"""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from ernie2.config import ConfigError

SPECIAL_TOKENS = ("[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]")
MAX_WORD_CHARS = 100
"""A longer word is [UNK]; the figure of BERT and of PaddleNLP."""

_UNUSED = re.compile(r"\[unused\d+\]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_CODE_POINTS = 0x110000
_RUN, _SPACE = -1, -2
_REMEMBERED_WORDS = 1 << 18
# The CJK blocks of everyday text. The rarer planes need no table: as runs they cost a little more, that is all.
_CJK_BLOCKS = ((0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00))


class Encoding(NamedTuple):
    """Tokens of a text; T tokens, no special tokens added.

    Attributes:
        ids: int32 (T), rows of the vocabulary.
        starts: int32 (T), first character of each token in the text as it was given.
        ends: int32 (T), one past its last character.
    """

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
        digest: sha256 of the tokens in order; the same for both file formats.
    """

    def __init__(self, tokens: list[str], where: str = "vocabulary") -> None:
        """Takes the tokens in order; `where` is for messages. Raises ConfigError where a special token is missing."""
        self.id_to_token = list(tokens)
        self.token_to_id = {token: row for row, token in enumerate(self.id_to_token)}
        missing = [token for token in SPECIAL_TOKENS if token not in self.token_to_id]
        if missing:
            raise ConfigError(f"{where}: the vocabulary has no {', '.join(missing)}; add a line for each special "
                              f"token, or build a vocabulary with `python -m data_gen.vocab`")
        self.pad_id, self.cls_id, self.sep_id, self.mask_id, self.unk_id = (self.token_to_id[t] for t in SPECIAL_TOKENS)
        self.continuation = np.array([len(t) > 2 and t.startswith("##") for t in self.id_to_token], dtype=bool)
        self.special = np.array([t in SPECIAL_TOKENS or _UNUSED.fullmatch(t) is not None for t in self.id_to_token],
                                dtype=bool)
        self.digest = hashlib.sha256("\n".join(self.id_to_token).encode("utf-8")).hexdigest()

    def __len__(self) -> int:
        """Number of tokens V."""
        return len(self.id_to_token)

    @classmethod
    def load(cls, path: str | Path) -> Vocab:
        """Reads one token a line, or `token<TAB>id` with every id from 0 to V-1 given once.

        Raises:
            ConfigError: not there, not UTF-8, a token twice, ids with gaps, no special tokens; names file and line.
        """
        lines = _read_lines(Path(path))
        with_ids = bool(lines) and all("\t" in line for line in lines)
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
                raise ConfigError(f"{path}:{number}: token {token!r} is in line {first_line[token]} too; remove one")
            if not 0 <= row < len(lines) or tokens[row] is not None:
                raise ConfigError(f"{path}:{number}: id {digits!r}; the ids of {len(lines)} tokens must be 0 to "
                                  f"{len(lines) - 1}, each once")
            first_line[token], tokens[row] = number, token
        return cls(tokens, str(path))


def _read_lines(path: Path) -> list[str]:
    """Lines of a UTF-8 file, split at line feeds only: other separators may be tokens themselves."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the vocabulary ({error.strerror}); check model.vocab_file, or build "
                          f"one with `python -m data_gen.vocab`") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}; save the vocabulary as UTF-8") from None
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines and not lines[-1] else lines


class _WordStore:
    """The library's answers, one row a word; tokens lie end to end in one array, for gathering without a loop."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.first = np.zeros(1 << 10, dtype=np.int64)
        self.size = np.zeros(1 << 10, dtype=np.int64)
        self.tokens = np.zeros((3, 1 << 12), dtype=np.int32)
        self.used = 0

    def add(self, word: str, ids: list[int], offsets: list[tuple[int, int]]) -> int:
        """Appends a word's tokens (ids, starts, ends in the word) and returns its row."""
        row, stop = len(self.rows), self.used + len(ids)
        if row == len(self.first):
            self.first, self.size = np.resize(self.first, 2 * row), np.resize(self.size, 2 * row)
        if stop > self.tokens.shape[1]:
            grown = np.zeros((3, 2 * stop), dtype=np.int32)
            grown[:, :self.used] = self.tokens[:, :self.used]
            self.tokens = grown
        self.first[row], self.size[row] = self.used, len(ids)
        if ids:
            self.tokens[0, self.used:stop] = ids
            self.tokens[1:, self.used:stop] = np.array(offsets, dtype=np.int32).T
        self.rows[word], self.used = row, stop
        return row

    def gather(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens of the words `rows` end to end, (3, total), and how many each word has."""
        sizes = self.size[rows]
        ends = np.cumsum(sizes)
        return self.tokens[:, np.repeat(self.first[rows] - ends + sizes, sizes) + np.arange(ends[-1])], sizes


class Tokenizer:
    """BERT's normalisation, splitting and WordPiece; the ids are those of the `tokenizers` library.

    Text that spells a special token is text: `[SEP]` in a document becomes `[`, `sep`, `]`. PaddleNLP's
    ErnieTokenizer gives the same tokens but for symbols beyond ASCII: it splits 42℃, which is one word to the library.
    """

    def __init__(self, vocab: Vocab, lower_case: bool = True) -> None:
        """`lower_case` also strips accents, as the released vocabularies expect."""
        self.vocab, self.lower_case = vocab, lower_case
        self._backend = make_backend(vocab.token_to_id, lower_case)
        alone, spaces = single_characters(lower_case)
        self._rows = np.full(_CODE_POINTS, _RUN, dtype=np.int32)
        self._rows[spaces] = _SPACE
        self._rows[alone] = self._backend.encode(_to_text(alone), add_special_tokens=False).ids
        self._words = _WordStore()

    def __reduce__(self) -> tuple:
        """A copy in another process is made from the vocabulary; tables and remembered words stay behind."""
        return _rebuild, (self.vocab.id_to_token, self.lower_case)

    def encode(self, text: str) -> Encoding:
        """Tokens of `text` with offsets in its characters. Without a limit on length; nothing is truncated."""
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        rows = self._rows[codes]
        alone = np.flatnonzero(rows >= 0).astype(np.int32)
        in_run = np.zeros(len(rows) + 2, dtype=np.int8)
        np.equal(rows, _RUN, out=in_run[1:-1].view(bool))
        edges = np.flatnonzero(in_run[1:] != in_run[:-1])
        if len(edges) == 0:
            return Encoding(rows[alone], alone, alone + np.int32(1))
        return self._with_runs(text, rows, alone, edges[0::2], edges[1::2])

    def encode_many(self, texts: list[str]) -> list[Encoding]:
        """`encode` of each text, at the cost of one call: short sentences come out several times faster."""
        # A line feed is a space wherever it stands, so the texts cannot touch each other.
        joined = self.encode("\n".join(texts))
        first = np.cumsum([0] + [len(text) + 1 for text in texts])
        at = np.searchsorted(joined.starts, first).tolist()
        return [Encoding(joined.ids[a:b], joined.starts[a:b] - shift, joined.ends[a:b] - shift)
                for a, b, shift in zip(at, at[1:], first.astype(np.int32))]

    def _with_runs(self, text: str, rows: np.ndarray, alone: np.ndarray, first: np.ndarray,
                   last: np.ndarray) -> Encoding:
        """Puts the tokens of the runs [first:last) between those of the single characters at `alone`."""
        if len(self._words.rows) > _REMEMBERED_WORDS:
            self._words = _WordStore()
        known = self._words.rows.get
        runs = [text[a:b] for a, b in zip(first.tolist(), last.tolist())]
        words = [known(run) for run in runs]
        if None in words:
            words = [self._learn(run) if row is None else row for run, row in zip(runs, words)]
        from_runs, sizes = self._words.gather(np.array(words))
        from_runs[1:] += np.repeat(first.astype(np.int32), sizes)
        if len(alone) == 0:
            return Encoding(*from_runs)
        width = (rows >= 0).astype(np.int32)
        width[first] = sizes
        place = np.cumsum(width) - width
        tokens = np.empty((3, from_runs.shape[1] + len(alone)), dtype=np.int32)
        tokens[:, place[alone]] = rows[alone], alone, alone + 1
        tokens[:, np.repeat(place[first] - np.cumsum(sizes) + sizes, sizes) + np.arange(from_runs.shape[1])] = from_runs
        return Encoding(*tokens)

    def _learn(self, run: str) -> int:
        """Asks the library about a run of characters; returns its row in the store."""
        row = self._words.rows.get(run)
        if row is None:
            # A lone surrogate cannot be passed on; U+FFFD is what such text decodes to, and is dropped likewise.
            encoded = self._backend.encode(_SURROGATE.sub("\ufffd", run), add_special_tokens=False)
            row = self._words.add(run, encoded.ids, encoded.offsets)
        return row

    def tokenize(self, text: str) -> list[str]:
        """The tokens themselves."""
        return [self.vocab.id_to_token[row] for row in self.encode(text).ids.tolist()]

    def decode(self, ids: np.ndarray | list[int]) -> str:
        """Readable text: pieces joined, spaces between Latin words only; without [PAD], with other special tokens."""
        text = ""
        for row in np.asarray(ids, dtype=np.int64).tolist():
            token = self.vocab.id_to_token[row]
            if row == self.vocab.pad_id:
                continue
            if self.vocab.continuation[row]:
                text += token[2:]
                continue
            text += " " + token if text and _needs_space(text, token, bool(self.vocab.special[row])) else token
        return text


def _needs_space(text: str, token: str, special: bool) -> bool:
    """Whether a space stands before `token` when it follows `text`."""
    left, right = text[-1], token[0]
    if special or text.endswith(("[CLS]", "[SEP]", "[MASK]", "[UNK]")):
        return True
    if ord(left) >= 0x2E80 or ord(right) >= 0x2E80:
        return False
    return right not in ".,:;!?%)]}'’”…" and left not in "([{$#'‘“’"


def _rebuild(tokens: list[str], lower_case: bool) -> Tokenizer:
    return Tokenizer(Vocab(tokens), lower_case)


def make_backend(token_to_id: dict[str, int], lower_case: bool) -> tokenizers.Tokenizer:
    """The reference: BertNormalizer, BertPreTokenizer and WordPiece of the `tokenizers` library."""
    backend = tokenizers.Tokenizer(models.WordPiece(vocab=token_to_id, unk_token="[UNK]",
                                                    max_input_chars_per_word=MAX_WORD_CHARS))
    backend.normalizer = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=True,
                                                    strip_accents=lower_case, lowercase=lower_case)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return backend


@functools.cache
def single_characters(lower_case: bool) -> tuple[np.ndarray, np.ndarray]:
    """Code points whose treatment never depends on their neighbours, as the library itself treats them.

    Each candidate is put between two letters: if it comes out as one word of its own, it is a token by itself; if
    nothing comes out and the letters are parted, it is a space. All others are left to the library.

    Returns:
        int64 code points that are a token by themselves (CJK characters, punctuation), and those that are spaces.
    """
    blocks = [np.arange(first, stop) for first, stop in _CJK_BLOCKS]
    marks = [c for c in range(0x10000) if c < 0x80 and not chr(c).isalnum() or unicodedata.category(chr(c))[0] in "PZ"]
    candidates = np.concatenate([*blocks, np.array(marks)])
    probes = np.full((len(candidates), 4), ord("a"))
    probes[:, 1], probes[:, 3] = candidates, ord(" ")
    encoded = make_backend({"[UNK]": 0, "a": 1}, lower_case).encode(_to_text(probes), add_special_tokens=False)
    starts, ends = np.array(encoded.offsets).T
    words = np.array(encoded.word_ids)
    # (candidates, 4): whole words of one character at "a", the candidate, "a", " "; any other token spoils the count.
    counts = np.zeros((len(candidates), 4), dtype=np.int64)
    whole = (ends - starts == 1) & (np.bincount(words)[words] == 1)
    np.add.at(counts, (starts // 4, starts % 4), np.where(whole, 1, 100))
    return candidates[(counts[:, :3] == [1, 1, 1]).all(axis=1)], candidates[(counts[:, :3] == [1, 0, 1]).all(axis=1)]


def _to_text(codes: np.ndarray) -> str:
    """Code points to a string."""
    return codes.astype("<u4").tobytes().decode("utf-32-le")
