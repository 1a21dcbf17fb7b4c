"""data_gen.vocab: building a vocabulary."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import SHARED

from data_gen.reading.documents import TextOptions
from data_gen.vocab import build_vocab, main
from ernie2.config import ConfigError
from ernie2.tokenizer import SPECIAL_TOKENS, Tokenizer, Vocab

ROOT = Path(__file__).resolve().parent.parent
ZH = (
    "北京大学的学生在学习。\n学生都在学习ERNIE，Ernie的学习！\n\n" * 5
    + "鲁迅、café、한국𠀀。\n"
    + "0123456789 testing tested tests\n" * 3
)
EN = "The tests are testing what was tested; unbelievable believers believe.\n" * 20 + "A naïve rest.\n"


@pytest.fixture()
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text(ZH, encoding="utf-8")
    return path


def test_chinese_vocabulary(corpus: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    made = build_vocab([corpus], 150, tmp_path / "sub" / "vocab.txt", report=lines.append)
    vocab = Vocab.load(tmp_path / "sub" / "vocab.txt")
    assert tuple(vocab.id_to_token[:5]) == SPECIAL_TOKENS and len(vocab) == made.size <= 150
    # 学 15 + 5 times, then 习 15 ... : characters by frequency.
    assert vocab.id_to_token[5] == "学" and vocab.token_to_id["生"] < vocab.token_to_id["鲁"]
    assert {"ernie", "t", "##t", "c", "##e", "0", "##9", "𠀀"} <= set(vocab.id_to_token)
    assert made.characters + made.pieces + 5 == made.size and made.unknown_rate == 0
    assert any("[UNK]" in line and f"{made.corpus_tokens:,}" in line for line in lines)


def test_unknown_rate_is_what_the_tokenizer_finds(tmp_path: Path) -> None:
    path = tmp_path / "many.txt"
    path.write_text("\n".join(chr(0x4E00 + n) * (300 - n) + " abc xyz" for n in range(300)), encoding="utf-8")
    made = build_vocab([path], 120, tmp_path / "vocab.txt")
    vocab = Vocab.load(tmp_path / "vocab.txt")
    ids = Tokenizer(vocab).encode(path.read_text(encoding="utf-8")).ids
    assert made.corpus_tokens == len(ids) and made.size == 120
    assert made.unknown_rate == pytest.approx((ids == vocab.unk_id).mean()) and made.unknown_rate > 0.2
    assert vocab.id_to_token[5] == "一", "the most frequent character comes first"


def test_english_vocabulary_learns_pieces(tmp_path: Path) -> None:
    (tmp_path / "en.txt").write_text(EN, encoding="utf-8")
    build_vocab([str(tmp_path / "*.txt")], 200, tmp_path / "vocab", language="en")
    tokenizer = Tokenizer(Vocab.load(tmp_path / "vocab"))
    assert tokenizer.tokenize("The tests: unbelievable") == ["the", "tests", "[UNK]", "unbelievable"]
    assert tokenizer.tokenize("Testable rest") != ["[UNK]"] * 2 and "[UNK]" not in tokenizer.tokenize(
        "Testable rest"
    )


def test_case_is_kept_on_request(corpus: Path, tmp_path: Path) -> None:
    build_vocab([corpus], 150, tmp_path / "vocab.txt", lower_case=False)
    assert {"E", "é"} <= {
        token.removeprefix("##") for token in Vocab.load(tmp_path / "vocab.txt").id_to_token
    }


def test_query_logs_are_read_too(corpus: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.tsv"
    log.write_text("query\ttitle\tclicked\n龙\t虎\t1\n", encoding="utf-8")
    build_vocab([corpus, log], 150, tmp_path / "vocab.txt")
    assert {"龙", "虎"} <= set(Vocab.load(tmp_path / "vocab.txt").id_to_token)


def test_all_input_is_read_as_data_generation_reads_it(tmp_path: Path) -> None:
    (tmp_path / "wiki_00").write_text('<doc id="1" title="凤">\n凤<br>凰。\n</doc>\n', encoding="utf-8")
    (tmp_path / "a.jsonl").write_text('{"title": "麒", "content": "ＡＢＣ麟"}\n{broken\n', encoding="utf-8")
    (tmp_path / "pairs.tsv").write_text("sentence1\tsentence2\tmarker\n鹏\t鲲\t但\n", encoding="utf-8")
    lines: list[str] = []
    files = [tmp_path / "wiki_00", tmp_path / "a.jsonl", tmp_path / "pairs.tsv"]
    build_vocab(
        files, 150, tmp_path / "vocab.txt", options=TextOptions(normalise_width=True), report=lines.append
    )
    tokens = set(Vocab.load(tmp_path / "vocab.txt").id_to_token)
    assert set("凤凰麒麟鹏鲲但") <= tokens and not tokens & {"doc", "br", "<", "ａ"} and "a" in tokens
    assert any(line.startswith("left out: bad_json: 1") for line in lines)


def test_the_shared_corpus_takes_seconds(tmp_path: Path) -> None:
    corpus = SHARED / "data" / "corpus" / "zh"
    if not corpus.is_dir():
        pytest.skip("no shared corpus")
    started = time.process_time()
    made = build_vocab([corpus], 12_000, tmp_path / "vocab.txt")
    assert made.size == 12_000 and time.process_time() - started < 10


def test_same_text_same_bytes(corpus: Path, tmp_path: Path) -> None:
    """In processes with other hash seeds and numbers of threads."""
    corpus.write_text(
        ZH + "\n".join(f"word{a}{b}" * 2 for a in "abcdefghij" for b in "klmnopqrst"), encoding="utf-8"
    )
    made = []
    for n in range(3):
        out = tmp_path / f"{n}.txt"
        environment = {**os.environ, "PYTHONHASHSEED": str(n), "RAYON_NUM_THREADS": str(n + 1)}
        command = [sys.executable, "-m", "data_gen.vocab", str(corpus), "--size", "260", "--out", str(out)]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        assert "[UNK]" in done.stdout
        made.append(out.read_bytes())
    assert made[0] == made[1] == made[2] and made[0].count(b"\n") > 130


def test_mistakes_leave_nothing_behind(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="100 or more"):
        build_vocab([corpus], 20, tmp_path / "vocab.txt")
    with pytest.raises(ConfigError, match="nowhere"):
        build_vocab([tmp_path / "nowhere.txt"], 200, tmp_path / "vocab.txt")
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be written"):
        build_vocab([corpus], 200, tmp_path / "file" / "vocab.txt")
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path / "nowhere.txt"), "--size", "200", "--out", str(tmp_path / "vocab.txt")])
    assert stopped.value.code == 2 and "nowhere.txt" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.txt", "file"]


def test_an_old_vocabulary_survives_a_crash(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "vocab.txt"
    out.write_text("old", encoding="utf-8")
    monkeypatch.setattr("data_gen.vocab.os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        build_vocab([corpus], 150, out)
    assert out.read_text(encoding="utf-8") == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.txt", "vocab.txt"]


def test_memory_stays_bounded(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rare words are forgotten first; frequent ones and all characters stay."""
    monkeypatch.setattr("data_gen.vocab.MAX_DISTINCT_WORDS", 4)
    build_vocab([corpus], 150, tmp_path / "vocab.txt")
    assert {"学", "鲁"} <= set(Vocab.load(tmp_path / "vocab.txt").id_to_token)


def test_a_vocabulary_is_extended_by_what_a_corpus_needs(tmp_path, capsys):
    """Its own tokens keep their places; characters and words that were [UNK] or many pieces get tokens."""
    base, corpus = tmp_path / "base.txt", tmp_path / "c.txt"
    base.write_text("\n".join([*SPECIAL_TOKENS, "的", "人", "a", "##a"]) + "\n", encoding="utf-8")
    corpus.write_text("鳜鱼的鳜，人\n" * 30 + "transformer transformers 的\n" * 30, encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        main([str(corpus), "--extend", str(base), "--size", "60", "--out", str(tmp_path / "new.txt")])
    assert stop.value.code == 0
    before, after = (
        path.read_text(encoding="utf-8").split("\n")[:-1] for path in (base, tmp_path / "new.txt")
    )
    assert after[: len(before)] == before and {"鳜", "鱼"} <= set(after[len(before) :]) and len(after) <= 60
    told = capsys.readouterr().out
    assert re.search(r"\[UNK\] \d\d\.\d+% before, 0\.0000% now", told), told
    with pytest.raises(SystemExit) as stop:
        main([str(corpus), "--extend", str(base), "--size", "9", "--out", str(tmp_path / "x.txt")])
    assert stop.value.code == 2 and "name a larger one" in capsys.readouterr().err
