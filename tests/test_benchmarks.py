"""The data-generation benchmark on a tiny corpus: its inputs, processes, table and verdicts."""

from __future__ import annotations

import gzip
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from benchmarks import datagen, datagen_parts, datagen_stages
from benchmarks.datagen_inputs import Inputs, documents_of, perturbed, read_text, write_large, write_slice
from benchmarks.datagen_peers import PADDLENLP_SCRIPTS, Peer, find_peers, peer_seconds
from benchmarks.datagen_rows import Found, all_rows, stages_table
from benchmarks.processes import Run, RunFailed, call_part, last_lines, run, write_recipe
from benchmarks.report import MISSED, NOT_RUN, OK, Row, at_least, at_most, failed, markdown, spread
from data_gen.vocab import build_vocab
from ernie2.config import load_recipe
from ernie2.strict import ConfigError

EXAMPLES = ROOT / "examples/zh"
CORPUS = [EXAMPLES / f"encyclopedia_{number}.txt" for number in range(1, 7)]
LOG = EXAMPLES / "query_log.tsv"


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    return Inputs.of([str(EXAMPLES / "encyclopedia_*.txt")], [str(LOG)])


@pytest.fixture(scope="module")
def vocab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    build_vocab([*CORPUS, LOG], 3000, path, True, "zh", "utf-8", print)
    return path


def codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), "<u4")


def test_perturbing_replaces_the_wanted_share_and_nothing_but_chinese_characters():
    text = read_text(CORPUS[0])
    before, after = codes(text), codes(perturbed(text, 0.05, (1, 2, 3)))
    changed = before != after
    chinese = (before >= 0x4E00) & (before < 0xA000)
    assert 0.035 < changed[chinese].mean() < 0.06  # some are replaced by themselves
    assert not changed[~chinese].any()
    assert set(after[changed]) <= set(before[chinese])
    assert perturbed(text, 0.05, (1, 2, 3)) == perturbed(text, 0.05, (1, 2, 3)) != perturbed(text, 0.05, (1, 3, 3))
    assert perturbed("no Chinese\n", 1.0, (1,)) == "no Chinese\n"


def test_inputs_are_counted_unpacked(tmp_path, inputs):
    packed = tmp_path / "corpus.txt.gz"
    packed.write_bytes(gzip.compress(CORPUS[0].read_bytes()))
    assert Inputs.of([str(packed)], [str(LOG)]).corpus_bytes == CORPUS[0].stat().st_size
    assert inputs.corpus_bytes == sum(path.stat().st_size for path in CORPUS)
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(ConfigError, match="corpus.txt.gz: cannot be read"):
        Inputs.of([str(packed)], [str(LOG)])
    (tmp_path / "empty.txt").touch()
    with pytest.raises(ConfigError, match="empty"):
        Inputs.of([str(tmp_path / "empty.txt")], [str(LOG)])


def test_a_slice_holds_whole_documents_of_every_file(tmp_path, inputs):
    part = write_slice(inputs, 30_000, tmp_path)
    documents = {document for path in CORPUS for document in documents_of(read_text(path))}
    taken = documents_of(read_text(part.corpus[0]))
    assert set(taken) < documents
    assert all(documents_of(read_text(path))[0] in taken for path in CORPUS)
    assert 30_000 <= part.corpus_bytes == part.corpus[0].stat().st_size < 50_000
    assert read_text(part.query_log[0]).splitlines()[0] == read_text(LOG).splitlines()[0]
    assert write_slice(inputs, 10**9, tmp_path).log_bytes == LOG.stat().st_size


def test_a_large_corpus_is_as_large_as_asked_and_ends_with_whole_documents(tmp_path, inputs):
    size = 3 * (inputs.corpus_bytes + inputs.log_bytes) + 12_345
    made = write_large(inputs.corpus, inputs.query_log, size, tmp_path, file_bytes=100_000)
    files = sorted(tmp_path.glob("corpus-*.txt"))
    assert made["files"] == len(files) > 2
    assert made["corpus_bytes"] == sum(path.stat().st_size for path in files)
    assert size - 10_000 < made["corpus_bytes"] + made["log_bytes"] <= size
    assert all(path.read_bytes().endswith(b"\n\n") for path in files)
    lengths = {len(document) for path in CORPUS for document in documents_of(read_text(path))}
    texts = [document for path in files for document in documents_of(read_text(path))]
    assert {len(text) for text in texts} == lengths and len(set(texts)) > 0.9 * len(texts)
    rows = read_text(tmp_path / "query_log.tsv").splitlines()
    assert len({len(row.split("\t")) for row in rows}) == 1 and rows.count(rows[0]) == 1


def test_a_process_is_timed_and_its_memory_seen():
    code = "import subprocess, sys, time; x = bytearray(150_000_000); time.sleep(0.3); subprocess.run([sys.executable, '-c', {!r}])"
    found = run([sys.executable, "-c", code.format("import time; y = bytearray(60_000_000); time.sleep(0.4)")])
    assert 0.7 < found.seconds < 20 and found.cpu_seconds < found.seconds
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # the system counts what a process was before it was another
    assert 150 < found.peak_mb < max(250, 1.1 * own)
    if own < 150:
        assert found.peak_mb + 50 < found.total_mb < found.peak_mb + 120


def test_a_process_that_fails_says_why_and_leaves_no_child():
    begin = time.monotonic()
    code = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); sys.exit('oh dear')"
    with pytest.raises(RunFailed, match="exit code 1: oh dear"):
        run([sys.executable, "-c", code])
    assert time.monotonic() - begin < 30
    assert last_lines("\n\n") == "no output" and last_lines("made\nerror: no room\n") == "no room"


def test_the_recipe_leaves_all_settings_at_their_defaults(tmp_path, inputs, vocab):
    recipe = load_recipe(write_recipe(tmp_path, vocab, inputs.corpus, inputs.query_log))
    assert (recipe.data.max_seq_len, recipe.data.segmenter, recipe.data.entity_dicts) == (512, "auto", [])
    assert len(recipe.task_names()) == 5
    assert load_recipe(write_recipe(tmp_path, vocab, inputs.corpus, inputs.query_log, segmenter="jieba")).data.segmenter == "jieba"


def test_every_stage_of_the_breakdown_exists():
    assert datagen_stages.missing_stages() == []


def test_the_stopwatch_gives_every_stage_its_own_time():
    watch = datagen_stages.Stopwatch(time.perf_counter)
    inner = watch.wrapped("inner", lambda: time.sleep(0.05), False)
    outer = watch.wrapped("outer", lambda: (time.sleep(0.02), inner()), False)
    numbers = watch.wrapped("steps", lambda: (time.sleep(0.02) or number for number in range(3)), True)
    begin = time.perf_counter()
    outer()
    assert [number for number in numbers() if time.sleep(0.03) is None] == [0, 1, 2]
    watch.enter("")
    assert 0.05 <= watch.seconds["inner"] and 0.02 <= watch.seconds["outer"] < watch.seconds["inner"]
    assert 0.06 <= watch.seconds["steps"] and 0.09 <= watch.seconds[datagen_stages.REST]
    assert sum(watch.seconds.values()) == pytest.approx(time.perf_counter() - begin, abs=0.02)


def test_verdicts_and_spread():
    assert spread([3.0, 1.0, 2.0], 1, "s") == "1.0 [1.0..3.0] s" and spread([1234.5], 0) == "1,234"
    assert spread([3.0, 1.0, 2.0], 1, "MB/s", max) == "3.0 [1.0..3.0] MB/s"
    assert at_least("x", 3, [2.9, 3.0]).verdict == OK and at_least("x", 3, [2.9, 2.99]).verdict == MISSED
    assert at_most("x", 1.3, [1.3, 2]).verdict == OK and at_most("x", 1.3, [1.31, 2]).verdict == MISSED
    assert failed("x", "", "no checkout", ours=False).verdict == NOT_RUN and failed("x", "", "crash", ours=True).verdict == MISSED
    assert Row("a|b", ">= 1", "0", MISSED).line == "| a/b | >= 1 | 0 | **MISSED** |"
    text = markdown("Title", ["about"], [Row("x", ">= 1", "2", OK), Row("y", "", "3", "")], [("More", ["| a |"])])
    assert "**1 targets met, 0 missed, 0 not run.**" in text and "## More\n\n| a |" in text


def full_results(seconds: float) -> Found:
    """Results of every series; `seconds`: what data generation took for 30 MB with default settings."""
    def took(seconds: float, peak: float = 300.0, total: float = 400.0) -> Run:
        return Run(seconds, seconds, peak, total, "")

    return Found({
        "jieba": [took(50)], "cut": [{"seconds": 40.0}], "default": [took(seconds)], "dictionaries": [took(seconds * 1.1)],
        "slice": [took(2)], "paddlenlp": [24.0, 22.0],
        "paddlenlp_small": [{"seconds": 7.0, "megabytes": 1.0}, {"seconds": 19.0, "megabytes": 1.0}],
        "tokens": [{"segmenter": "fast 1", "tokens": 30.0, "sentences": 99.0, "segmentation": 8.0, "peer": 0.6}],
        "same_tokens": [{"lines": 10, "default": "bert", "same": {"bert": 0.9, "ernie": 1.0}, "differing": {}}],
        "same_words": [{"sentences": 10_000, "same": 0.9995, "differing": 5, "examples": []}],
        "million": [{"load_seconds": 2.0, "slower": [0.1, 0.15]}],
        "large_100": [{"megabytes": 100.0}], "large_100_1": [took(30), took(60), took(31)],
        "large_100_2": [took(16, 300, 900), took(32), took(15.5)], "large_100_beside": [took(20), took(31.6), took(13)],
        "large_1000": [{"megabytes": 1000.0}], "large_1000_1": [took(300, 650)],
        "large_1000_2": [took(160, 300, 1300)],
    })


def test_the_table_judges_every_target(tmp_path, inputs):
    inputs = Inputs(inputs.corpus, inputs.query_log, 28_000_000, 2_000_000)
    part = Inputs(inputs.corpus, inputs.query_log, 4_000_000, 300_000)
    peers = [Peer("paddlenlp", "", 15.0, lambda *_: 1.0)]
    rows = all_rows(full_results(9.0), inputs, part, peers, [100, 1000])
    bad = {row.what for row in rows if row.verdict == MISSED}
    assert bad == {f"peak memory, 1,000 MB of text, {workers}, largest process" for workers in ("1 worker", "2 workers")}
    assert [row.what for row in rows if row.verdict == NOT_RUN] == ["times as fast as Baidu's demo script"]
    # 25.7 MB in 7 s against 3 MB in 15 s
    assert next(row for row in rows if row.what.startswith("times as fast as PaddleNLP")).measured.startswith("18.4;")
    efficiencies = [row for row in rows if "efficiency" in row.what or "of one worker" in row.what or "the two runs" in row.what]
    assert [row.measured for row in efficiencies] == [
        "101.7 % (64.6 s / 63.5 s, 3 rounds together; round by round 98.8 [83.9..125.0] %, the median)", "95.3 %", "93.7 %",
        "93.8 %"]
    assert [row.verdict for row in efficiencies] == [OK, "", "", ""]
    slow = {row.what: row.verdict for row in all_rows(full_results(11.0), inputs, part, peers, [])}
    assert slow["data generation, default settings, 1 worker, whole process"] == MISSED
    nothing = all_rows(Found(faults={"default": "exit code 2: no such file"}), inputs, part, [], [100])
    assert {row.verdict for row in nothing if row.wanted} == {MISSED, NOT_RUN}
    assert any("exit code 2: no such file" in row.measured for row in nothing)
    assert stages_table(Found()) == ["Not run: left out."]


def test_peers_are_found_run_and_removed(tmp_path, vocab):
    with pytest.raises(ConfigError, match="--paddlenlp .*: no words_segmentation.py"):
        find_peers(tmp_path, None)
    scripts = tmp_path / "model_zoo/ernie-1.0/preprocess"
    scripts.mkdir(parents=True)
    body = "import sys\nfrom pathlib import Path\nimport LAC\nassert Path('raw').is_dir()\n"
    for name in PADDLENLP_SCRIPTS:
        (scripts / name).write_text(body, encoding="utf-8")
    peers = find_peers(tmp_path, None)
    with pytest.raises(RunFailed, match="made.bin of 0 bytes"):
        peer_seconds(peers[0], CORPUS[0], vocab, tmp_path / "scratch")
    (scripts / PADDLENLP_SCRIPTS[-1]).write_text(f"{body}Path('made.bin').write_bytes(bytes(10_000))\n", encoding="utf-8")
    assert 0 < peer_seconds(peers[0], CORPUS[0], vocab, tmp_path / "scratch") < 30
    assert not list((tmp_path / "scratch").iterdir())


def test_parts_run_in_processes_of_their_own(tmp_path, inputs, vocab):
    found = call_part("cut", tmp_path, corpus=CORPUS[:1], query_log=[LOG])
    assert found["words"] > 1000 and found["seconds"] > 0
    with pytest.raises(RunFailed, match="no such file|No such file"):
        call_part("cut", tmp_path, corpus=[tmp_path / "none.txt"], query_log=[])
    made = datagen_parts.write_million([*map(str, CORPUS)], [], str(tmp_path / "words.txt"), 500)
    words = (tmp_path / "words.txt").read_text(encoding="utf-8").split()
    assert made["entries"] == len(words) == len(set(words)) == 500
    cost = datagen_parts.dictionaries([*map(str, CORPUS)], str(vocab), [], str(tmp_path / "words.txt"), 0.1, 2)
    assert len(cost["slower"]) == 1 and cost["megabytes"] > 0.09
    same = datagen_parts.same_words([str(CORPUS[0])])
    assert same["sentences"] > 50 and same["same"] == 1 - same["differing"] / same["sentences"]


def test_the_whole_benchmark_on_a_tiny_corpus(tmp_path, inputs, vocab, capsys):
    out = tmp_path / "report.md"
    write_large(inputs.corpus, inputs.query_log, 1_000_000, tmp_path)  # enough for a dev split of every task
    with pytest.raises(SystemExit) as end:
        datagen.main([str(tmp_path / "corpus-*.txt"), "--query-log", str(tmp_path / "query_log.tsv"), "--vocab", str(vocab),
                      "--rounds", "1", "--only", "default", "stages", "--scratch", str(tmp_path / "scratch"), "--out", str(out)])
    assert end.value.code == 1  # so little text in seconds of start-up: the rate is missed
    report = out.read_text(encoding="utf-8")
    printed = capsys.readouterr().out
    assert "1.0 MB of text; about 1 min" in printed and report in printed
    assert "| data generation, default settings, 1 worker, whole process | >= 3 MB/s |" in report
    assert str(tmp_path) not in report
    assert "| merge, write shards |" in report and "failed" not in report
    assert not list((tmp_path / "scratch").iterdir())


def test_mistakes_on_the_command_line_are_named(tmp_path, vocab, capsys):
    corpus, log = str(CORPUS[0]), ["--query-log", str(LOG)]
    for argv, message in (([corpus, *log, "--vocab", str(tmp_path / "none.txt")], "none.txt"),
                          ([corpus, *log, "--vocab", str(vocab), "--rounds", "0"], "--rounds: found 0"),
                          ([corpus, *log, "--vocab", str(vocab), "--ernie", str(tmp_path)], "make_pretrain_data.py"),
                          ([str(tmp_path / "none-*.txt"), *log, "--vocab", str(vocab)], "no such file")):
        with pytest.raises(SystemExit) as end:
            datagen.main(argv)
        assert end.value.code == 2
        assert message in capsys.readouterr().err
