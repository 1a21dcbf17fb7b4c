"""Small shards written by hand: a sentence is typed with its words, phrases and entities, and comes out as an
example.

"{居里 夫人} 发现 了 ⟨放射 元素⟩ ." words are parted by spaces, {entity}, ⟨phrase⟩; a character is a token, a
                                         Latin word as well, its pieces after ##; word/1 gives its tokens
                                         label 1"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from data_gen.audit import __main__ as audit
from ernie2.shards import IGNORED, LEVELS, Example, ShardWriter
from ernie2.tasks import load_tasks
from ernie2.tokenizer import SPECIAL_TOKENS, Vocab

CHARACTERS = "居里夫人发现了放射元素他们在京图书馆看，。因此但是我国的科学家很多今天气好不"
LATIN = ("the", "cat", "saw", "mar", "##ie", "cu", "##rie", ".", "on", "a", "mat")
PIECE = re.compile(r"##[a-z]+|[a-z]+|.")


def write_vocab(folder: Path) -> Vocab:
    """vocab.txt in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "vocab.txt"
    path.write_text("\n".join([*SPECIAL_TOKENS, *dict.fromkeys(CHARACTERS), *LATIN]) + "\n", encoding="utf-8")
    return Vocab.load(path)


def example(vocab: Vocab, segments: list[str], label: int | None = None, spans: bool = True) -> Example:
    """An example of segments as typed above; token labels where any word has one."""
    ids, sentence, labels = [vocab.cls_id], [0], [IGNORED]
    begins: dict[str, list[bool]] = {level: [True] for level in LEVELS}
    special = [True]
    for number, text in enumerate(segments):
        inside = {"phrase": False, "entity": False}
        for typed in text.split():
            word, _, of = re.sub("[{}⟨⟩]", "", typed).partition("/")
            tokens = PIECE.findall(word.replace("+", "##"))
            opens = {"phrase": "⟨" in typed, "entity": "{" in typed}
            for place, token in enumerate(tokens):
                ids.append(vocab.token_to_id.get(token, vocab.unk_id))
                sentence.append(number)
                labels.append(int(of) if of else IGNORED)
                special.append(False)
                begins["word"].append(place == 0)
                for level in inside:
                    begins[level].append(place == 0 and (opens[level] or not inside[level]))
            for level, closing in (("phrase", "⟩"), ("entity", "}")):
                inside[level] = (inside[level] or opens[level]) and closing not in typed
        for values, value in ((ids, vocab.sep_id), (sentence, number), (labels, IGNORED), (special, True)):
            values.append(value)
        for level in LEVELS:
            begins[level].append(True)
    found = {level: np.where(special, -1, np.cumsum(begins[level])).astype(np.int16) for level in LEVELS}
    token_labels = np.array(labels, np.int8) if max(labels) != IGNORED else None
    return Example(np.array(ids), np.array(sentence, np.int8), found if spans else None, token_labels, label)


def write_shards(
    shards: Path,
    task: str,
    train: list[Example],
    dev: list[Example],
    vocab: Vocab,
    samples_per_shard: int = 50,
    **index: object,
) -> Path:
    """Shards of one task; returns their folder."""
    writer = ShardWriter(shards / task, load_tasks()[task], len(vocab), samples_per_shard)
    for split, examples in (("train", train), ("dev", dev)):
        for one in examples:
            writer.write(split, one)
    writer.close(
        {"vocab_digest": vocab.digest, "language": "zh", "lower_case": True, "max_seq_len": 32, **index}
    )
    return shards / task


STATISTICS = {
    "accepted": {"train": 90, "dev": 9},
    "rejected": {"document of one sentence": 7},
    "thinned": {"train": 3, "dev": 0},
    "labels": {},
    "notes": {"html left-overs": 12, "odd_space": 5},
    "documents": 40,
    "input_bytes": 123_456,
    "dictionary_hits": [["居里夫人", "entity", 21], ["放射元素", "phrase", 9], ["<b>图书馆", "entity", 2]],
}
"""What a generation counts, beside the samples."""

TEXTS = [
    "{居里 夫人} 发现 了 ⟨放射 元素⟩ 。",
    "他们 在 ⟨{北 京} 图书馆⟩ 看书 ，",
    "我国 的 科学家 很多 。",
    "今天 天气 很好 。",
]


def shuffled(vocab: Vocab, count: int, label: int = 0, seed: int = 0) -> list[Example]:
    """Examples of two segments of some of the characters in random order, none alike."""
    rng, made = np.random.default_rng(seed), []
    for _ in range(count):
        words = ["".join(rng.permutation(list(CHARACTERS))[: rng.integers(1, 4)].tolist()) for _ in range(9)]
        words[1], words[2] = "{" + words[1], words[2] + "}"
        words[4], words[5] = "⟨" + words[4], words[5] + "⟩"
        made.append(example(vocab, [" ".join(words[: rng.integers(6, 10)]), "居里 夫人 ."], label))
    return made


def write_two_tasks(folder: Path, vocab: Vocab) -> Path:
    """Two tasks, nothing wrong with them: 300 pairs in three even classes, and 120 examples of running
    text."""
    classes = [one for label in range(3) for one in shuffled(vocab, 110, label, label)]
    order = np.random.default_rng(0).permutation(300)
    write_shards(
        folder,
        "sentence_distance",
        [classes[i + 10 * (i // 100)] for i in order],
        [one for label in range(3) for one in classes[110 * label + 100 : 110 * label + 110]],
        vocab,
        100,
        statistics=STATISTICS,
    )
    write_shards(
        folder, "knowledge_masking", shuffled(vocab, 120, seed=7), shuffled(vocab, 110, seed=8), vocab, 50
    )
    return folder


def audited(capsys: pytest.CaptureFixture, *argv: object, code: int = 0) -> str:
    """What the audit prints when it is run with these arguments; its message where it is to exit with 2."""
    with pytest.raises(SystemExit) as stop:
        audit.main([str(arg) for arg in argv])
    captured = capsys.readouterr()
    assert stop.value.code == code, captured.out + captured.err
    return captured.err if code == 2 else captured.out
