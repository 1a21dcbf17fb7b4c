"""`python -m data_gen.show SHARDS/TASK [-n 5]`: examples as text, with segments, spans, masks, and labels in words."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_gen.generators import Generator, load_generator
from ernie2.config import ConfigError, cli
from ernie2.masking import draw_masks
from ernie2.shards import IGNORED, LEVELS, SPLITS, Example, ShardReader, read_index
from ernie2.tasks import select_tasks
from ernie2.tokenizer import Tokenizer, Vocab

MASK_LEVELS = ("basic", "phrase", "entity")
BRACKETS = {"phrase": "⟨⟩", "entity": "{}"}
COLOURS = {"head": "1", "special": "2", "masked": "31", "label": "32", "phrase": "36", "entity": "35"}


class Painter:
    """Puts text in colour, or leaves it as it is."""

    def __init__(self, colour: bool) -> None:
        self.colour = colour

    def __call__(self, text: str, role: str) -> str:
        """`text` in the colour of `role`."""
        return f"\x1b[{COLOURS[role]}m{text}\x1b[0m" if self.colour else text


def load_shards(folder: Path, vocab_file: str | None = None) -> tuple[dict[str, Any], Generator, Tokenizer]:
    """Index, generator (for the words of labels) and tokenizer of a task's shards.

    Args:
        folder: <shards_dir>/<task>.
        vocab_file: The vocabulary; default: the copy that data_gen leaves in <shards_dir>.

    Raises:
        ConfigError: no finished shards there, the vocabulary missing or another one.
    """
    index = read_index(folder)
    path = Path(vocab_file) if vocab_file else folder.parent / "vocab.txt"
    if not path.exists():
        raise ConfigError(f"{path}: no vocabulary there; name it with --vocab FILE")
    vocab = Vocab.load(path)
    if vocab.digest != index.get("vocab_digest"):
        raise ConfigError(f"{path}: not the vocabulary that {folder} was made with; name that one with --vocab FILE")
    task = select_tasks([index["task"]], str(folder))[0]
    generator = load_generator(task, index.get("language", "zh"))
    return index, generator, Tokenizer(vocab, lower_case=index.get("lower_case", True))


def describe(example: Example, generator: Generator, tokenizer: Tokenizer, rng: np.random.Generator, paint: Painter,
             ) -> Iterator[str]:
    """Lines that tell all there is in an example.

    Args:
        example: Of the shards.
        generator: Knows the words of the labels.
        tokenizer: Decodes.
        rng: Draws the masks.
        paint: Colours.
    """
    ids = example.token_ids
    if example.sentence_label is not None:
        label = f"label {example.sentence_label}: {generator.describe(example.sentence_label)}"
        yield paint(label, "label")
    yield f"text        {tokenizer.decode(ids)}"
    for number in np.unique(example.sentence_ids):
        yield f"segment {number}   {tokenizer.decode(ids[example.sentence_ids == number])}"
    if example.span_ids is not None:
        for level in LEVELS:
            yield f"{level:11} {bracketed(example, level, tokenizer, paint)}"
        for level in MASK_LEVELS:
            yield f"mask {level:6} {masked(example, level, tokenizer, rng, paint)}"
    if example.token_labels is not None:
        for label in np.unique(example.token_labels[example.token_labels != IGNORED]):
            words = ", ".join(labelled_words(example, int(label), tokenizer))
            yield paint(f"class {label} ({generator.describe(int(label))}): ", "label") + words


def units(ids: np.ndarray) -> Iterator[tuple[int, int]]:
    """(start, stop) of every run of equal ids; ids int (T)."""
    edges = np.flatnonzero(np.diff(ids)) + 1
    yield from zip([0, *edges.tolist()], [*edges.tolist(), len(ids)], strict=True)


def bracketed(example: Example, level: str, tokenizer: Tokenizer, paint: Painter) -> str:
    """Text with its words parted by | (level word), or with units of several words in brackets."""
    words, parts = example.span_ids["word"], []
    for start, stop in units(example.span_ids[level]):
        text = tokenizer.decode(example.token_ids[start:stop])
        if example.span_ids[level][start] < 0:
            parts.append(paint(text, "special"))
        elif level == "word":
            parts.append(text)
        elif words[start] != words[stop - 1]:
            left, right = BRACKETS[level]
            parts.append(paint(f"{left}{text}{right}", level))
        else:
            parts.append(text)
    return ("|" if level == "word" else " ").join(parts)


def masked(example: Example, level: str, tokenizer: Tokenizer, rng: np.random.Generator, paint: Painter) -> str:
    """One draw of masks: every predicted token as `shown<truth`, or `truth=` where it was kept."""
    vocab = tokenizer.vocab
    ordinary = np.flatnonzero(~vocab.special)
    shown, positions = draw_masks(example, level, vocab.continuation, vocab.mask_id, ordinary, 0.15, rng)
    parts, last = [], 0
    for position in positions.tolist():
        parts.append(tokenizer.decode(example.token_ids[last:position]))
        truth, seen = (vocab.id_to_token[int(ids[position])] for ids in (example.token_ids, shown))
        parts.append(paint(f"{truth}=" if seen == truth else f"{seen}<{truth}", "masked"))
        last = position + 1
    parts.append(tokenizer.decode(example.token_ids[last:]))
    return " ".join(part for part in parts if part)


def labelled_words(example: Example, label: int, tokenizer: Tokenizer) -> list[str]:
    """Words of a class, each once, in order; where the example has no word spans, tokens."""
    ids = np.arange(len(example.token_ids)) if example.span_ids is None else example.span_ids["word"]
    found = [tokenizer.decode(example.token_ids[a:b]) for a, b in units(ids) if example.token_labels[a] == label]
    return list(dict.fromkeys(found))


def chosen(reader: ShardReader, count: int, label: int | None, start: int) -> Iterator[int]:
    """Numbers of the first `count` examples from `start` on; of class `label`, of the sentence or of any token."""
    for i in range(start, len(reader)):
        if count <= 0:
            return
        example = reader[i]
        labels = [example.sentence_label] if example.token_labels is None else example.token_labels
        if label is None or label in labels:
            count -= 1
            yield i


@cli
def main(argv: Sequence[str]) -> int:
    """Prints examples of a task's shards as text."""
    parser = argparse.ArgumentParser(prog="python -m data_gen.show", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="<shards_dir>/<task>")
    parser.add_argument("-n", type=int, default=5, help="examples to show; default 5")
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--class", dest="label", type=int, help="only examples of this class")
    parser.add_argument("--start", type=int, default=0, help="number of the first example looked at; default 0")
    parser.add_argument("--seed", type=int, default=0, help="of the masks drawn; default 0")
    parser.add_argument("--vocab", help="vocabulary; default <shards_dir>/vocab.txt")
    args = parser.parse_args(argv)
    index, generator, tokenizer = load_shards(args.folder, args.vocab)
    reader, paint = ShardReader(args.folder, args.split), Painter(sys.stdout.isatty())
    numbers = list(chosen(reader, args.n, args.label, args.start))
    if not numbers:
        raise ConfigError(f"{args.folder}: no such example among the {len(reader)} of split {args.split}")
    for i in numbers:
        example = reader[i]
        head = f"{index['task']}, {args.split}, example {i} of {len(reader):,}: {len(example.token_ids)} tokens"
        print(paint(head, "head"))
        for line in describe(example, generator, tokenizer, np.random.default_rng([args.seed, i]), paint):
            print(line)
        print()
    return 0


if __name__ == "__main__":
    main()
