"""Bad luck on the command line of data_gen: a counted skip or one clear message, finished work kept, the same
bytes afterwards."""

from __future__ import annotations

import bz2
import ctypes
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT
from test_pipeline import code_of, contents, write_corpus

from data_gen.__main__ import main
from ernie2.shards import read_index
from ernie2.tokenizer import SPECIAL_TOKENS

TASKS = ["knowledge_masking", "sentence_distance"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture()
def recipe(tmp_path: Path) -> Path:
    """Two tasks on the English files of corpus/, every letter in the vocabulary."""
    (tmp_path / "corpus").mkdir()
    write_corpus(tmp_path / "corpus" / "good.txt", 80)
    tokens = [*SPECIAL_TOKENS, *LETTERS, *("##" + letter for letter in LETTERS), *"0123456789.,"]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    mapping = {
        "name": "t",
        "out_dir": str(tmp_path / "out"),
        "seed": 5,
        "model": {"size": "tiny", "vocab_file": str(tmp_path / "vocab.txt")},
        "data": {
            "shards_dir": str(tmp_path / "shards"),
            "corpus": [str(tmp_path / "corpus" / "*")],
            "language": "en",
            "max_seq_len": 48,
            "dev_share": 0.2,
        },
        "curriculum": {"stages": [TASKS], "steps_per_task": 10, "mode": "multitask"},
        "lr": {"peak": 1e-3},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(mapping), encoding="utf-8")
    return path


def rejects(tmp_path: Path) -> list[dict]:
    """Rows of rejects.jsonl that no task wrote."""
    lines = (tmp_path / "shards" / "rejects.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["task"] is None]


def refused(capsys: pytest.CaptureFixture, *argv: object) -> str:
    """The one message of a run that has to end with code 2."""
    assert code_of(main, *argv, "--workers", 1) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1, error
    return error


def samples(tmp_path: Path, task: str = "knowledge_masking") -> dict[str, int]:
    return read_index(tmp_path / "shards" / task)["samples"]


def test_a_line_of_a_million_characters(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "corpus" / "line.txt").write_text("an old house " * 77_000 + "\n", encoding="utf-8")
    assert code_of(main, recipe, "--workers", 1) == 0
    assert samples(tmp_path)["train"] + samples(tmp_path)["dev"] > 10_000  # the line is used, in segments
    notes = read_index(tmp_path / "shards" / "knowledge_masking")["statistics"]["notes"]
    assert notes["long_sentence"] == 1


ARTICLE = "The old house {} fell. Rain came. Nobody saw it.\n"
ARTICLES = "".join(map(ARTICLE.format, range(300)))


@pytest.mark.parametrize(
    ("text", "share", "said"),
    [
        (
            ARTICLE,
            0.001,
            ["no example in the dev split: data.corpus is 1 document in 1 line", "give more documents"],
        ),
        (
            ARTICLES,
            0.2,
            ["dev split: data.corpus is 1 document in 300 lines", "ends at a blank line", ".jsonl"],
        ),
        (
            ARTICLES.replace("\n", "\r"),
            0.999,
            ["train split: data.corpus is 1 document in 300 lines", "blank"],
        ),
        (
            f"{ARTICLE}\n{ARTICLE * 2}",
            0.001,
            ["2 documents in 4 lines", "none of them in that split", "raise it, or give"],
        ),
        (
            f"{ARTICLE}\n{ARTICLE * 2}",
            0.999,
            ["2 documents in 4 lines", "none of them in that split", "lower it, or give"],
        ),
        (
            f"{ARTICLE}\n{ARTICLE * 2}\n{ARTICLE * 3}",
            0.5,
            ["'sentence_distance'", "1 of them in that split", "nothing of it"],
        ),
    ],
)
def test_a_corpus_of_few_documents(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture, text: str, share: float, said: list[str]
) -> None:
    (tmp_path / "corpus" / "good.txt").write_bytes(text.encode())
    message = refused(capsys, recipe, f"data.dev_share={share}")
    said = ["error: task '", f"({tmp_path}/corpus/good.txt: ", *said]
    assert all(words in message for words in said), message
    assert not (tmp_path / "shards" / "knowledge_masking").exists()


def test_long_documents_that_were_cut_are_named(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_gen.reading.cutting.LONG_DOCUMENT", 10_000)
    (tmp_path / "corpus" / "good.txt").write_text(
        "".join(map(ARTICLE.format, range(4_000))), encoding="utf-8"
    )
    assert code_of(main, recipe, "data.dev_share=0.5", "--tasks", "knowledge_masking", "--workers", 1) == 0
    printed = capsys.readouterr().out
    assert "good.txt:1: a document of more than 4 MB" in printed and "ends at a blank line" in printed


@pytest.mark.parametrize("text", ["", "\n \n\t\r\n\n"])
def test_a_corpus_of_nothing(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture, text: str) -> None:
    (tmp_path / "corpus" / "good.txt").write_text(text, encoding="utf-8")
    assert "no document in it" in refused(capsys, recipe)


def test_binary_junk_and_zero_bytes_are_counted(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "corpus" / "junk.txt").write_bytes(np.random.default_rng(0).bytes(30_000))
    (tmp_path / "corpus" / "zeros.txt").write_bytes(b"\0" * 30_000)
    assert code_of(main, recipe, "--workers", 1) == 0
    rows = [row for row in rejects(tmp_path) if row["reason"] == "binary"]
    assert {Path(row["file"]).name for row in rows} == {"junk.txt", "zeros.txt"}
    assert all(set(row) == {"task", "file", "line", "reason", "text"} and row["line"] >= 1 for row in rows)


def test_a_truncated_file_gives_what_could_be_read(recipe: Path, tmp_path: Path) -> None:
    whole = (tmp_path / "corpus" / "good.txt").read_bytes()
    packed = {"t.txt.gz": gzip.compress(whole), "u.txt.bz2": bz2.compress(whole)}
    for name, data in packed.items():
        (tmp_path / "corpus" / name).write_bytes(data[: len(data) * 2 // 3])
    assert code_of(main, recipe, "--workers", 1) == 0
    found = {
        Path(row["file"]).name: row["text"] for row in rejects(tmp_path) if row["reason"] == "damaged_file"
    }
    assert found == {"t.txt.gz": "truncated gz file", "u.txt.bz2": "truncated bz2 file"}
    # The last four bytes of what is left of a .gz say nothing of its size: few shards, not hundreds.
    assert len(read_index(tmp_path / "shards" / "knowledge_masking")["shards"]["train"]) == 1


@pytest.mark.parametrize("kind", ["dangling", "loop", "fifo", "unreadable"])
def test_an_unreadable_file_among_many(recipe: Path, tmp_path: Path, kind: str) -> None:
    bad = tmp_path / "corpus" / "bad.txt"
    if kind == "dangling":
        bad.symlink_to(tmp_path / "nowhere.txt")
    elif kind == "loop":
        bad.symlink_to("bad.txt")
    elif kind == "unreadable":
        if not Path("/proc/self/mem").exists():
            pytest.skip("no file here that opens and cannot be read")
        bad.symlink_to("/proc/self/mem")  # reading its first byte is an input/output error, for root as well
    else:
        os.mkfifo(bad)
    done = launched(
        recipe, "--workers", "1", timeout=20
    )  # in a process of its own: reading a FIFO would hang
    assert done.returncode == 0, done.stderr
    assert [row["reason"] for row in rejects(tmp_path) if Path(row["file"]).name == "bad.txt"] == [
        "unreadable_file"
    ]


def test_a_folder_named_like_a_document(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "corpus" / "x.txt").mkdir()
    assert code_of(main, recipe, "--workers", 1) == 0  # the glob passes it over
    assert "x.txt" in refused(capsys, recipe, f"data.corpus=[{tmp_path}/corpus/x.txt]")


def test_a_dictionary_with_duplicates_blanks_and_regex_characters(recipe: Path, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text(
        "old\nold\nold\tphrase\n\n   \n\u200b\tns\n\tns\nhouse\n.*\n[a-z]+(\n\\\n^$\n", encoding="utf-8"
    )
    assert code_of(main, recipe, f"data.entity_dicts=[{words}]", "--workers", 1) == 0
    statistics = read_index(tmp_path / "shards" / "knowledge_masking")["statistics"]
    assert {(entry, kind) for entry, kind, _ in statistics["dictionary_hits"]} == {
        ("old", "entity"),
        ("house", "entity"),
    }
    assert statistics["dictionaries"] == [[str(words), 5, 2]]


def test_a_dictionary_of_which_nothing_is_found(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for name, text in (("some.txt", "old\nzebra\n"), ("none.txt", "zebra\nyak\n")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert (
        code_of(main, recipe, f"data.entity_dicts=[{tmp_path}/some.txt,{tmp_path}/none.txt]", "--workers", 1)
        == 0
    )
    printed = capsys.readouterr().out
    assert "some.txt: 1 of 2 entries found" in printed and "none.txt: 0 of 2 entries found" in printed
    assert (
        printed.count("WARNING") == 1
        and f"WARNING: {tmp_path / 'none.txt'}: none of its 2 entries" in printed
    )


@pytest.mark.parametrize(
    "data, said",
    [
        (b"\n\n \n", "no entry in it"),
        (b"house\thome\n", "words.txt:1: unknown tag 'home'"),
        (b"house\n\xb1\xb1\xbe\xa9\n", "words.txt:2: not utf-8 at byte 6"),
    ],
)
def test_a_dictionary_that_cannot_be_used(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture, data: bytes, said: str
) -> None:
    (tmp_path / "words.txt").write_bytes(data)
    assert said in refused(capsys, recipe, f"data.entity_dicts=[{tmp_path / 'words.txt'}]")


def test_a_run_stops_when_too_much_is_rejected(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    text = "".join(
        f'{{"text": "House {i} fell down. Rain came and went. Nobody saw it."}}\n{{broken\n'
        for i in range(40)
    )
    (tmp_path / "corpus" / "rows.jsonl").write_text(text, encoding="utf-8")
    (tmp_path / "corpus" / "good.txt").unlink()
    message = refused(capsys, recipe, "data.max_reject_share=0.4")
    assert "data.max_reject_share: 40 of 80 documents rejected" in message and "bad_json: 40" in message
    assert "rows.jsonl:2" in message
    assert code_of(main, recipe, "data.max_reject_share=0.6", "--workers", 1) == 0
    rows = rejects(tmp_path)
    assert [row["line"] for row in rows] == list(range(2, 81, 2)) and {row["reason"] for row in rows} == {
        "bad_json"
    }


def test_a_message_is_one_line_whatever_the_text_it_quotes(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert "too_short" in refused(capsys, recipe, "data.min_chars=100000")


@pytest.mark.parametrize(
    "change",
    [{"samples": "x"}, {"samples": 10**30}, {"samples": -1, "tokens": -5}, {"name": "../../x"}, None],
)
def test_an_index_edited_by_hand(recipe: Path, tmp_path: Path, change: dict | None) -> None:
    assert code_of(main, recipe, "--workers", 1) == 0
    expected, path = contents(tmp_path / "shards"), tmp_path / "shards" / "knowledge_masking" / "index.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    if change is None:
        index["shards"]["train"] = [None]
    else:
        index["shards"]["train"][0].update(change)
    path.write_text(json.dumps(index), encoding="utf-8")
    assert code_of(main, recipe, "--workers", 1) == 0
    assert contents(tmp_path / "shards") == expected


@pytest.mark.parametrize("garbage", [b"garbage\n", b"\xff\xfe\n", b"[]\n5\nnull\n", b'{"a": 1}\n'])
def test_rejects_that_are_no_rejects(recipe: Path, tmp_path: Path, garbage: bytes) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "rejects.jsonl").write_bytes(garbage)
    assert code_of(main, recipe, "--workers", 1) == 0
    assert rejects(tmp_path) == []


def test_a_shards_folder_that_is_a_file(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    assert "data.shards_dir" in refused(capsys, recipe, f"data.shards_dir={tmp_path / 'file'}")
    assert "data.shards_dir" in refused(capsys, recipe, f"data.shards_dir={tmp_path / 'file' / 'below'}")


def test_paths_with_spaces_and_brackets(recipe: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a b 文 [1]"
    odd.mkdir()
    write_corpus(odd / "é [x].txt")
    assert (
        code_of(
            main, recipe, f'data.corpus=["{odd}/é [x].txt"]', f"data.shards_dir={odd}/shards", "--workers", 1
        )
        == 0
    )


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"}


def launched(recipe: Path, *argv: str, timeout: float = 120) -> subprocess.CompletedProcess:
    """A run in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "data_gen", str(recipe), *argv],
        cwd=ROOT,
        env=environment(),
        text=True,
        capture_output=True,
        timeout=timeout,
        check=False,
    )


def children(process: int) -> list[int]:
    """Worker processes of a run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text(encoding="utf-8").rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == process:
            found.append(int(path.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the workers in /proc")
def test_a_run_that_is_told_to_end_leaves_no_worker(recipe: Path, tmp_path: Path) -> None:
    for number in range(2):
        write_corpus(tmp_path / "corpus" / f"more{number}.txt", 6_000, seed=number)
    with (tmp_path / "said.txt").open("w", encoding="utf-8") as said:
        run = subprocess.Popen(
            [sys.executable, "-m", "data_gen", str(recipe), "--workers", "2"],
            cwd=ROOT,
            env=environment(),
            stdout=said,
            stderr=said,
        )
        workers: list[int] = []
        try:
            wait_for(lambda: list((tmp_path / "shards").rglob("*.spill")) and children(run.pid), run)
            workers = children(run.pid)
            run.terminate()
            assert run.wait(20) != 0
            end = time.monotonic() + 5
            while left := [one for one in workers if Path(f"/proc/{one}").exists()]:
                assert time.monotonic() < end, f"workers {left} live on"
                time.sleep(0.05)
        finally:
            run.kill()
            for one in workers:
                if b"data_gen" in command_of(one):
                    os.kill(one, signal.SIGKILL)
    text = (tmp_path / "said.txt").read_text(encoding="utf-8")
    assert "Traceback" not in text and text.splitlines()[-1].startswith("interrupted")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the workers in /proc")
def test_a_killed_worker(recipe: Path, tmp_path: Path) -> None:
    for number in range(2):
        write_corpus(tmp_path / "corpus" / f"more{number}.txt", 6_000, seed=number)
    assert launched(recipe, "--workers", "1", f"data.shards_dir={tmp_path / 'whole'}").returncode == 0
    shards = tmp_path / "shards"
    with (tmp_path / "said.txt").open("w", encoding="utf-8") as said:
        run = subprocess.Popen(
            [sys.executable, "-m", "data_gen", str(recipe), "--workers", "2"],
            cwd=ROOT,
            env=environment(),
            stdout=said,
            stderr=said,
        )
        try:
            wait_for(lambda: len(list(shards.rglob("*.spill"))) > 3 and children(run.pid), run)
            os.kill(children(run.pid)[-1], signal.SIGKILL)
            assert run.wait(60) == 2
        finally:
            run.kill()
    text = (tmp_path / "said.txt").read_text(encoding="utf-8")
    assert "a worker process was killed" in text and "Traceback" not in text
    assert list(shards.rglob("*.spill")), "finished work is kept"
    again = launched(recipe, "--workers", "2")
    assert again.returncode == 0 and "going on with interrupted work" in again.stdout, again.stderr
    assert contents(shards) == contents(tmp_path / "whole")


def command_of(process: int) -> bytes:
    """Its command line; empty where it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def wait_for(ready: object, run: subprocess.Popen) -> None:
    """Until the run is where it is to be killed."""
    end = time.monotonic() + 60
    while not ready():
        assert run.poll() is None and time.monotonic() < end, "the run was over before it could be killed"
        time.sleep(0.02)


@pytest.fixture()
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 400 kB where mounting is allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "mount") or libc.mount(b"tmpfs", bytes(folder), b"tmpfs", 0, b"size=400k"):
        pytest.skip("mounting is not allowed here")
    yield folder
    libc.umount2(bytes(folder), 2)


def test_a_full_disk_at_every_stage(
    recipe: Path, tmp_path: Path, small_disk: Path, capsys: pytest.CaptureFixture
) -> None:
    """The disk grows step by step: it fills up during blocks, merging and finishing, and the same command
    goes on."""
    write_corpus(tmp_path / "corpus" / "more.txt", 2_000, seed=1)
    assert code_of(main, recipe, f"data.shards_dir={tmp_path / 'whole'}", "--workers", 1) == 0
    libc, full, kept = ctypes.CDLL(None, use_errno=True), 0, 0
    for kilobytes in (400, 1_000, 1_800, 2_400, 3_000, 3_600, 4_200, 4_800, 30_000):
        assert (
            libc.mount(b"tmpfs", bytes(small_disk), b"tmpfs", 32, b"size=%dk" % kilobytes) == 0
        )  # 32: remount
        code = code_of(main, recipe, f"data.shards_dir={small_disk}", "--workers", 1)
        captured = capsys.readouterr()
        if code == 0:
            break
        assert (
            code == 2 and "data.shards_dir: no space left" in captured.err and captured.err.count("\n") == 1
        ), captured.err
        spills = len(list((small_disk / ".work").rglob("*.spill")))
        assert spills >= kept
        full, kept = full + 1, spills
    assert code == 0 and full >= 3
    assert contents(small_disk) == contents(tmp_path / "whole")
