"""The targets of data generation, and what the benchmark's measurements come to beside them."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.datagen_inputs import Inputs
from benchmarks.datagen_peers import Peer
from benchmarks.report import INFORMATION, MISSED, OK, Row, at_least, at_most, failed, spread

JIEBA_RATIO, RATE, DICTIONARY_COST, TOKENS_RATE = 1.3, 3.0, 20.0, 10.0
SAME_WORDS = 99.9
MEMORY_MB, EFFICIENCY, LOAD_SECONDS = 600.0, 95.0, 10.0


@dataclass
class Found:
    """What was measured.

    Attributes:
        runs: Name of a series -> its results, one a round: `Run`, seconds, or what a part returned.
        faults: Name of a series that failed -> why.
        names: Name of a series -> what it is, for messages.
    """

    runs: dict[str, list[Any]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)

    def has(self, *names: str) -> bool:
        """Whether all these series have results, and none failed in a later round."""
        return all(self.runs.get(name) and name not in self.faults for name in names)

    def why(self, *names: str) -> str:
        """Why a row cannot be given."""
        return next((self.faults[name] for name in names if name in self.faults), "left out")


def all_rows(found: Found, inputs: Inputs, part: Inputs, peers: Sequence[Peer], large: Sequence[int]) -> list[Row]:
    """Rows of the table.

    Args:
        found: The measurements.
        inputs: Corpus and query log.
        part: The slice of them that peers get.
        peers: Those that could be run.
        large: Sizes of the large corpora, MB.
    """
    rows = [*_generation(found, inputs), *_dictionaries(found)]
    for key, name, times in (("paddlenlp", "PaddleNLP's ernie-1.0 scripts", 15.0), ("ernie", "Baidu's demo script", 12.0)):
        if any(peer.key == key for peer in peers):
            rows += _peer(found, inputs, part, key, name, times)
        else:
            rows.append(failed(f"times as fast as {name}", f">= {times:g}", f"no checkout given (--{key})", ours=False))
    return [*rows, *_tokens(found), *_words(found), *_large(found, large)]


def _generation(found: Found, inputs: Inputs) -> list[Row]:
    size = inputs.megabytes
    what, wanted = "data generation with jieba / jieba.cut alone, same text", f"<= {JIEBA_RATIO:g}"
    rows = [_or_failed(found, ("jieba", "cut"), what, wanted, lambda: at_most(
        what, JIEBA_RATIO, [min(_seconds(found, "jieba")) / min(one["seconds"] for one in found.runs["cut"])], digits=3,
        note=f" ({spread(_seconds(found, 'jieba'), 1, 's')} / {spread([one['seconds'] for one in found.runs['cut']], 1, 's')})"))]
    what, wanted = "data generation, default settings, 1 worker, whole process", f">= {RATE:g} MB/s"
    rows.append(_or_failed(found, ("default",), what, wanted, lambda: at_least(
        what, RATE, [size / seconds for seconds in _seconds(found, "default")], "MB/s",
        note=f"; {spread(_seconds(found, 'default'), 1, 's')} for {size:.1f} MB, "
             f"{spread([run.cpu_seconds for run in found.runs['default']], 1, 's')} of processor time")))
    return rows


def _dictionaries(found: Found) -> list[Row]:
    what, rows = "slower with the entity dictionaries, whole process with their loading", []
    if found.has("dictionaries", "default"):
        share = min(_seconds(found, "dictionaries")) / min(_seconds(found, "default")) - 1
        rows.append(Row(what, "", f"{100 * share:.0f} %; {spread(_seconds(found, 'dictionaries'), 1, 's')}", INFORMATION))
    what, wanted = "annotation slower with a million dictionary words", f"<= {DICTIONARY_COST:g} %"
    rows.append(_or_failed(found, ("million",), what, wanted, lambda: at_most(
        what, DICTIONARY_COST, [100 * share for one in found.runs["million"] for share in one["slower"]], "%", 1)))
    what, wanted = "loading a million dictionary words", f"<= {LOAD_SECONDS:g} s"
    rows.append(_or_failed(found, ("million",), what, wanted, lambda: at_most(
        what, LOAD_SECONDS, [one["load_seconds"] for one in found.runs["million"]], "s", 1)))
    return rows


def _peer(found: Found, inputs: Inputs, part: Inputs, key: str, name: str, times: float) -> list[Row]:
    """Two rows of a peer: rates without the start-up of either, each from two sizes of text, and as both are on the same
    slice."""
    small, whole, what = f"{key}_small", f"{key}", f"times as fast as {name}"
    needed = (small, whole, "default", "slice")
    if not found.has(*needed):
        return [failed(what, f">= {times:g}", found.why(*needed), ours=any(one in found.faults for one in ("default", "slice")))]
    part_size, ours = part.corpus_bytes / 1e6, _seconds(found, "slice")
    # The best of each size: a quick round of the larger one after a slow round of the smaller one is no rate.
    rate = _rate(inputs.megabytes - part.megabytes, min(_seconds(found, "default")) - min(ours))
    peer_rate = _rate(part_size - found.runs[small][0]["megabytes"],
                      min(found.runs[whole]) - min(one["seconds"] for one in found.runs[small]))
    rows = [failed(what, f">= {times:g}", "a smaller text took as long as a larger one", ours=rate is None)]
    if rate and peer_rate:
        rows = [at_least(what, times, [rate / peer_rate], digits=1,
                         note=f"; without start-up {peer_rate:.3f} MB/s against our {rate:.2f} MB/s")]
    ours_whole, theirs_whole = part.megabytes / min(ours), part_size / min(found.runs[whole])
    rows.append(Row(f"the same on a slice of {part_size:.1f} MB, whole processes both", "",
                    f"{ours_whole / theirs_whole:.1f}; {theirs_whole:.3f} MB/s against our {ours_whole:.2f} MB/s", INFORMATION))
    return rows


def _rate(megabytes: float, seconds: float) -> float | None:
    """MB/s; None of no or negative time."""
    return megabytes / seconds if seconds > 0 else None


def _tokens(found: Found) -> list[Row]:
    what = "tokenisation, blocks of 1 MB, nothing remembered before"
    if not found.has("tokens"):
        return [failed(what, f">= {TOKENS_RATE:g} MB/s", found.why("tokens"), ours="tokens" in found.faults)]
    runs = found.runs["tokens"]
    rows = [at_least(what, TOKENS_RATE, [one["tokens"] for one in runs], "MB/s", 1)]
    peer = [one["peer"] for one in runs if "peer" in one]
    rows.append(Row("PaddleNLP's ErnieTokenizer, line by line", "", spread(peer, 2, "MB/s", max) if peer else
                    f"not run: {runs[0]['peer_error']}", INFORMATION))
    for name, text in (("sentences", "sentence splitting alone"), ("segmentation", f"segmentation alone, {runs[0]['segmenter']}")):
        rows.append(Row(text, "", spread([one[name] for one in runs], 1, "MB/s", max), INFORMATION))
    what = "lines with the same ids as by PaddleNLP's ErnieTokenizer"
    same = found.runs.get("same_tokens", [{}])[0]
    if "same" not in same:
        why = same.get("peer_error") or found.why("same_tokens")
        return [*rows, failed(what, "100 %", why, ours="same_tokens" in found.faults)]
    for rules, share in same["same"].items():
        text = f"{100 * share:.4f} % of {same['lines']:,}"
        label = f"{what}, rules `{rules}`{' (default)' if rules == same['default'] else ''}"
        judged = OK if share == 1 else MISSED
        rows.append(Row(label, "100 %", text, judged) if rules == "ernie" else Row(label, "", text, INFORMATION))
    return rows


def _words(found: Found) -> list[Row]:
    what, wanted = "sentences that the default segmenter cuts like jieba", f">= {SAME_WORDS:g} %"

    def row() -> Row:
        one = found.runs["same_words"][0]
        return at_least(what, SAME_WORDS, [100 * one["same"]], "%", 4,
                        f" of {one['sentences']:,}; {one['differing']} differ")

    return [_or_failed(found, ("same_words",), what, wanted, row)]


def _large(found: Found, sizes: Sequence[int]) -> list[Row]:
    rows = []
    for size in sizes:
        for workers in (1, 2):
            name = f"large_{size}_{workers}"
            what = f"peak memory, {size:,} MB of text, {workers} worker{'s' * (workers > 1)}, largest process"
            rows.append(_or_failed(found, (name,), what, f"< {MEMORY_MB:g} MB",
                                   functools.partial(_memory, found, name, what, workers)))
        for workers in (1, 2):
            name = f"large_{size}_{workers}"
            if found.has(name):
                megabytes = found.runs[f"large_{size}"][0]["megabytes"]
                rows.append(Row(f"rate at {megabytes:,.0f} MB, {workers} worker{'s' * (workers > 1)}", "", spread(
                    [megabytes / run.seconds for run in found.runs[name]], 2, "MB/s", max), INFORMATION))
        rows += _workers(found, size, judged=size == min(sizes))
    return rows


def _memory(found: Found, name: str, what: str, workers: int) -> Row:
    runs = found.runs[name]
    worst, together = max(run.peak_mb for run in runs), max(run.total_mb for run in runs)
    return Row(what, f"< {MEMORY_MB:g} MB", f"{worst:.0f} MB (all processes together {together:.0f} MB)",
               OK if max(worst, together / workers) < MEMORY_MB else MISSED)


def _workers(found: Found, size: int, judged: bool) -> list[Row]:
    """Two workers beside one, and beside two runs of half the corpus at the same time, which share nothing: what those lose
    against one alone is the machine's, not ours. Judged is the second, of the corpus of which there are several rounds: these
    together, as two runs that are nearly alike differ less than the machine's speed from one to the next."""
    one, two, beside = (f"large_{size}_{name}" for name in ("1", "2", "beside"))
    what, rows = f"efficiency of 2 workers, {size:,} MB, of what two runs of half the corpus at a time reach that share nothing", []

    def row() -> Row:
        rounds = [100 * theirs / ours for theirs, ours in zip(_seconds(found, beside), _seconds(found, two))]
        note = (f" ({sum(_seconds(found, beside)):.1f} s / {sum(_seconds(found, two)):.1f} s, {len(rounds)} rounds together; "
                f"round by round {statistics.median(rounds):.1f} [{min(rounds):.1f}..{max(rounds):.1f}] %, the median)")
        return at_least(what, EFFICIENCY, [_share(found, beside, two, 100)], "%", 1, note)

    if judged:
        rows.append(_or_failed(found, (beside, two), what, f">= {EFFICIENCY:g} %", row))
    for name, text in ((two, f"2 workers, {size:,} MB, of twice the rate of one worker alone"),
                       (beside, "the same of the two runs: what this machine's second core gives")):
        if found.has(one, name):
            rows.append(Row(text, "", f"{_share(found, one, name, 50):.1f} %", INFORMATION))
    return rows


def _share(found: Found, one: str, other: str, factor: float) -> float:
    """How long one takes, over how long the other does, times `factor`; all rounds together."""
    return factor * sum(_seconds(found, one)) / sum(_seconds(found, other))


def _seconds(found: Found, name: str) -> list[float]:
    return [run.seconds for run in found.runs[name]]


def _or_failed(found: Found, names: Sequence[str], what: str, wanted: str, row: Callable[[], Row]) -> Row:
    """The row, or one that says what is missing."""
    if found.has(*names):
        return row()
    return failed(what, wanted, found.why(*names), ours=any(name in found.faults for name in names))


def stages_table(found: Found) -> list[str]:
    """Markdown of the breakdown by stage."""
    if not found.has("stages"):
        return [f"Not run: {found.why('stages')}."]
    one = found.runs["stages"][0]
    lines = ["| stage | ms a MB |", "|---|---|", *(f"| {name} | {value:.1f} |" for name, value in one["ms_per_mb"].items()),
             f"| sum | {sum(one['ms_per_mb'].values()):.1f} |"]
    if one["missing"]:
        lines += ["", f"Not timed apart, so part of other stages: {', '.join(one['missing'])}."]
    return lines
