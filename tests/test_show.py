"""data_gen.show: what it prints of examples typed by hand, in colour and without, however wide the screen
is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from rich.cells import cell_len as columns
from shard_making import TEXTS, example, shuffled, write_shards, write_vocab

from data_gen import show
from data_gen.readable import Readable, cut, printable
from ernie2.masking import draw_masks
from ernie2.tokenizer import Tokenizer, Vocab


@pytest.fixture
def vocab(tmp_path: Path) -> Vocab:
    return write_vocab(tmp_path / "shards")


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return tmp_path / "shards"


def printed(capsys: pytest.CaptureFixture, *argv: object, code: int = 0) -> str:
    with pytest.raises(SystemExit) as stop:
        show.main([str(arg) for arg in argv])
    captured = capsys.readouterr()
    assert stop.value.code == code, captured.err
    return captured.err if code else captured.out


def test_spans_come_out_as_they_were_typed(vocab: Vocab, shards: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write_shards(shards, "sentence_distance", [example(vocab, TEXTS[:2], 2)], [], vocab)
    out = printed(capsys, folder, "--masks", "none")
    assert (
        "── sentence_distance, train 0 of 1: 26 tokens ─" in out and "label 2: different documents\n" in out
    )
    assert "segment 1     [CLS] {居里 夫人} 发现 了 ⟨放射 元素⟩ 。 [SEP]\n" in out
    assert "segment 2     他们 在 ⟨{[UNK] 京} 图书馆⟩ 看书 ， [SEP]\n" in out
    assert "Sentence distance (paper section 3.2.2)" in out, (
        "the task is introduced in its generator's own words"
    )
    assert "Classes: 0 adjacent; 1 same document, not adjacent; 2 different documents" in out
    assert "\x1b[" not in out, "no colour outside a terminal"


def test_permutations_are_spelt_out(vocab: Vocab, shards: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write_shards(
        shards, "sentence_reordering", [example(vocab, [TEXTS[2], TEXTS[0], TEXTS[1]], 7)], [], vocab
    )
    out = printed(capsys, folder, "--masks", "none")
    assert "label 7: 3 segments, shown in the order 3 1 2 of the original" in out
    for line in (
        "segment 1 ← 3 [CLS] 我国",
        "segment 2 ← 1 {居里",
        "segment 3 ← 2 他们",
        "read in the order 2 3 1 it is that",
    ):
        assert line in out


def test_the_connective_is_named(vocab: Vocab, shards: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write_shards(shards, "discourse_relation", [example(vocab, TEXTS[:2], 1)], [], vocab)
    assert "label 1: 但是\n" in printed(capsys, folder)


def test_token_labels_stand_under_their_tokens(
    vocab: Vocab, shards: Path, capsys: pytest.CaptureFixture
) -> None:
    text = ["mar+ie/1 saw/0 居里/1 的 cat/0 ."]
    folder = write_shards(shards, "capitalization", [example(vocab, text)], [], vocab)
    out = printed(capsys, folder, "--masks", "none").splitlines()
    at = next(i for i, line in enumerate(out) if line.startswith("token "))
    above, below = out[at], out[at + 1]
    assert above == "token         [CLS] marie saw居里的cat. [SEP]"
    assert below.startswith("class ")
    under = {}
    for found in re.finditer(r"\d", below):
        width, place = 0, 0
        while width < found.start():
            width, place = width + columns(above[place]), place + 1
        under[above[place:].split(" ")[0][:3]] = found.group()
    assert under == {"mar": "1", "ie": "1", "saw": "0", "居里的": "1", "里的c": "1", "cat": "0"}
    assert "class 1 (capital): marie, 居里" in out and "class 0 (lower case): saw, cat" in out


def test_masks_are_those_of_the_trainer(vocab: Vocab, shards: Path, capsys: pytest.CaptureFixture) -> None:
    made = example(vocab, TEXTS[:2], 0)
    readable, ordinary = Readable(made, Tokenizer(vocab)), np.flatnonzero(~vocab.special)
    assert readable.text(0, len(readable)) == Tokenizer(vocab).decode(made.token_ids)
    for seed in range(20):
        for level in ("basic", "phrase", "entity"):
            shown, places = draw_masks(
                made, level, vocab.continuation, vocab.mask_id, ordinary, 0.3, np.random.default_rng(seed)
            )
            drawn = readable.draw(level, np.random.default_rng(seed), 0.3)
            assert list(drawn) == places.tolist()
            for place, target in drawn.items():
                truth, seen = (vocab.id_to_token[int(ids[place])] for ids in (made.token_ids, shown))
                assert target.truth == truth.removeprefix("##") and target.seen == seen
                assert target.kind == (
                    "masked" if seen == "[MASK]" else "kept" if seen == truth else "random"
                )
    out = printed(
        capsys, write_shards(shards, "sentence_distance", [made], [], vocab), "--mask-prob", "0.999"
    ).splitlines()
    for level in ("basic", "phrase", "entity"):
        at = next(i for i, line in enumerate(out) if line.startswith(f"mask {level}"))
        truth = re.sub(r"\s", "", out[at + 1].removeprefix("predict"))
        assert truth == "居里夫人发现了放射元素。他们在[UNK]京图书馆看书，" and "__" in out[at]
        assert out[at].index("[SEP]") > 0, "what is never masked is seen"
    assert "mask basic" not in "".join(printed(capsys, shards / "sentence_distance", "--masks", "entity"))


def test_colour(
    vocab: Vocab, shards: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_shards(shards, "sentence_distance", [example(vocab, TEXTS[:2], 1)], [], vocab)
    coloured = printed(capsys, folder, "--color", "always")
    assert (
        "\x1b[1;32mlabel 1" in coloured
        and "\x1b[1;35m{\x1b[0m" in coloured
        and "\x1b[4;36m⟨\x1b[0m" in coloured
    )
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == printed(capsys, folder, "--color", "never")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    for environment, when, colour in (
        ({}, "auto", True),
        ({}, "never", False),
        ({"NO_COLOR": "1"}, "auto", False),
        ({"NO_COLOR": "1"}, "always", True),
        ({"TERM": "dumb"}, "auto", False),
    ):
        for name, value in ({"NO_COLOR": "", "TERM": "xterm"} | environment).items():
            monkeypatch.setenv(name, value)
        assert ("\x1b[1;32mlabel 1" in printed(capsys, folder, "--color", when)) == colour


@pytest.mark.parametrize("width", [40, 57, 120])
def test_lines_are_as_wide_as_the_screen(
    vocab: Vocab, shards: Path, width: int, capsys: pytest.CaptureFixture
) -> None:
    folder = write_shards(shards, "sentence_distance", shuffled(vocab, 5), [], vocab)
    lines = printed(capsys, folder, "-n", 5, "--width", width).splitlines()
    wide = [columns(line) for line in lines if not line.startswith("label")]
    assert max(wide) <= width and max(wide) > width - 6


def test_choice_of_examples(vocab: Vocab, shards: Path, capsys: pytest.CaptureFixture) -> None:
    made = [one for label in range(3) for one in shuffled(vocab, 3, label, label)]
    folder = write_shards(shards, "ir_relevance", made, made[:1], vocab, samples_per_shard=4)
    assert printed(capsys, folder).count("── ir_relevance, train") == 3
    out = printed(capsys, folder, "--class", 2, "-n", 2)
    assert "train 6 of 9" in out and "train 7 of 9" in out and "train 8 of 9" not in out
    for name in ("random title of another query", "Random", "strong: clicked, or the top grade"):
        place = 0 if name.startswith("strong") else 6
        assert f"train {place} of 9" in printed(capsys, folder, "--class", name, "-n", 1)
    for name, part in (
        ("grade", "2 classes of task 'ir_relevance' have this in their names"),
        ("x y", "no classes of task"),
    ):
        assert part in printed(capsys, folder, "--class", name, code=2)
    connectives = write_shards(shards, "discourse_relation", shuffled(vocab, 2, 37), [], vocab)
    assert "label 37: 因此" in printed(capsys, connectives, "--class", "因此")
    plain = write_shards(shards, "knowledge_masking", shuffled(vocab, 2), [], vocab)
    assert "has no classes" in printed(capsys, plain, "--class", "因此", code=2)
    assert "train 4 of 9" in printed(capsys, folder, "--start", 4, "-n", 1)
    assert "dev 0 of 1" in printed(capsys, folder, "--split", "dev")
    assert printed(capsys, folder, "--seed", 1) != printed(capsys, folder, "--seed", 2)


def test_a_folder_of_tasks_is_listed(vocab: Vocab, shards: Path, capsys: pytest.CaptureFixture) -> None:
    for task in ("sentence_distance", "ir_relevance"):
        write_shards(shards, task, shuffled(vocab, 3), shuffled(vocab, 1), vocab)
    (shards / "half.tmp").mkdir()
    (shards / "half.tmp/index.json").write_text("{", encoding="utf-8")
    (shards / "broken").mkdir()
    (shards / "broken/index.json").write_text("{", encoding="utf-8")
    out = printed(capsys, shards)
    assert "ir_relevance         3 train and 1 dev examples\n" in out and "half" not in out
    assert "sentence_distance    3 train" in out and "not JSON" in out


def test_mistakes(vocab: Vocab, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write_shards(shards, "ir_relevance", shuffled(vocab, 3), [], vocab)
    other = tmp_path / "other.txt"
    other.write_text("[PAD]\n[CLS]\n[SEP]\n[MASK]\n[UNK]\na\n", encoding="utf-8")
    for arguments, part in [
        ((tmp_path / "none",), "no finished shards"),
        ((folder, "--class", 9), "no such example"),
        ((tmp_path,), "no finished shards there"),
        ((folder, "--split", "dev"), "no such example among the 0 of split dev"),
        ((folder, "--vocab", tmp_path / "v.txt"), "no vocabulary there"),
        ((folder, "--vocab", other), "not the vocabulary"),
        ((folder, "-n", 0), "-n of 1 or more"),
        ((folder, "--mask-prob", 2), "--mask-prob"),
    ]:
        assert part in printed(capsys, *arguments, code=2)


def test_an_ascii_locale_loses_characters_not_the_output(vocab: Vocab, shards: Path) -> None:
    folder = write_shards(shards, "sentence_distance", [example(vocab, TEXTS[:2], 1)], [], vocab)
    done = subprocess.run(
        [sys.executable, "-m", "data_gen.show", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PYTHONIOENCODING": "ascii", "PATH": ""},
        check=False,
    )
    assert done.returncode == 0 and "segment 1     [CLS] {?? ??}" in done.stdout


def test_nothing_from_a_vocabulary_moves_the_cursor(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    shards = tmp_path / "shards"
    text = write_vocab(shards) and (shards / "vocab.txt").read_text(encoding="utf-8")
    (shards / "vocab.txt").write_text(text.replace("今\n", "\x1b[2J今\n"), encoding="utf-8")
    vocab = Vocab.load(shards / "vocab.txt")
    made = example(vocab, ["居里 的 ."])
    made.token_ids[2] = vocab.token_to_id["\x1b[2J今"]
    folder = write_shards(shards, "knowledge_masking", [made], [], vocab)
    out = printed(capsys, folder, "--color", "never")
    assert "\x1b" not in out and "\ufffd[2J今" in out


def test_text_is_cut_to_columns() -> None:
    assert [columns(text) for text in ("abc", "中文", "ａ，", "e\u0301", "")] == [3, 4, 4, 1, 0]
    assert [cut("中文字", width) for width in (6, 5, 4)] == ["中文字", "中文…", "中…"]
    assert printable("a\tb\x07\u3000") == "a b\ufffd "
