"""The targets of data generation, and what the benchmark's measurements come to beside them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Iterator, Sequence

from benchmarks.datagen_peers import PEERS, Peer
from benchmarks.datagen_text import Text
from benchmarks.harness import MISSED, NOT_RUN, OK, Found, Row, at_least, at_most, spread

JIEBA_RATIO, RATE, DICTIONARY_COST, LOAD_SECONDS, TOKENS_RATE = 1.3, 3.0, 20.0, 10.0, 10.0
SAME_WORDS, MEMORY_MB, EFFICIENCY = 99.9, 600.0, 95.0


def all_rows(
    found: Found, text: Text, part: Text, small: Text, peers: Collection[Peer], large: Sequence[int]
) -> list[Row]:
    """Rows of the table.

    Args:
        found: The measurements.
        text: Corpus and query log.
        part: The slice of them that peers get.
        small: The smaller slice, which shows their start-up.
        peers: Those that could be run.
        large: Sizes of the large corpora, MB."""
    rows = [*_generation(found, text), *_dictionaries(found)]
    for peer in PEERS:
        if peer in peers:
            rows += _peer(found, peer, text, part, small)
        else:
            wanted, why = f">= {peer.times:g}", f"not run: no checkout given (--{peer.key})"
            rows.append(Row(f"times as fast as {peer.name}", wanted, why, NOT_RUN))
    rows += [*_agreement(found)]
    for size in large:
        rows += [
            *_memory(found, size),
            *_rates(found, size),
            *_workers(found, size, judged=size == min(large)),
        ]
    return rows


def _row(found: Found, what: str, wanted: str, names: Sequence[str], row: Callable[[], Row]) -> Row:
    """The row, or one that says which of the series it needs is missing."""
    return row() if found.has(*names) else found.failed(what, wanted, names)


def _generation(found: Found, text: Text) -> Iterator[Row]:
    what = "data generation with jieba / jieba.cut alone, same text"

    def beside_jieba() -> Row:
        ours, alone = found.seconds("jieba"), found.values("cut", "seconds")
        note = f" ({spread(ours, 1, 's')} / {spread(alone, 1, 's')})"
        return at_most(what, JIEBA_RATIO, [min(ours) / min(alone)], digits=3, note=note)

    yield _row(found, what, f"<= {JIEBA_RATIO:g}", ("jieba", "cut"), beside_jieba)
    name = "data generation, default settings, 1 worker, whole process"

    def rate() -> Row:
        seconds, busy = found.seconds("default"), [run.cpu_seconds for run in found.runs["default"]]
        time = (
            f"{spread(seconds, 1, 's')} for {text.megabytes:.1f} MB, {spread(busy, 1, 's')} of processor time"
        )
        return at_least(name, RATE, [text.megabytes / one for one in seconds], "MB/s", note=f"; {time}")

    yield _row(found, name, f">= {RATE:g} MB/s", ("default",), rate)


def _dictionaries(found: Found) -> Iterator[Row]:
    if found.has("dictionaries", "default"):
        seconds = found.seconds("dictionaries")
        share = min(seconds) / min(found.seconds("default")) - 1
        what = "slower with the entity dictionaries, whole process with their loading"
        yield Row(what, "", f"{100 * share:.0f} %; {spread(seconds, 1, 's')}")
    for what, limit, unit, key, factor in (
        ("annotation slower with a million dictionary words", DICTIONARY_COST, "%", "slower", 100),
        ("loading a million dictionary words", LOAD_SECONDS, "s", "load_seconds", 1),
    ):
        if found.has("million"):
            yield at_most(what, limit, [factor * one for one in found.values("million", key)], unit, digits=1)
        else:
            yield found.failed(what, f"<= {limit:g} {unit}", ("million_words", "million"))


def _peer(found: Found, peer: Peer, text: Text, part: Text, small: Text) -> Iterator[Row]:
    """Rates without the start-up of either, each from two sizes of text; and as both are on the same
    slice."""
    what, wanted, needed = f"times as fast as {peer.name}", f">= {peer.times:g}", ("default", "slice")
    theirs = (f"{peer.key}_small", peer.key)
    if not found.has(*needed, *theirs):
        row = found.failed(what, wanted, (*needed, *theirs))
        ours = row.verdict != MISSED or any(name in found.faults for name in needed)
        yield row if ours else Row(what, wanted, row.measured, NOT_RUN)  # the fault is the peer's
        return
    # The best of each size: a quick round of the larger one after a slow round of the smaller one is no rate.
    slice_seconds, start, whole = min(found.seconds("slice")), *(min(found.runs[name]) for name in theirs)
    seconds, peer_seconds = min(found.seconds("default")) - slice_seconds, whole - start
    if min(seconds, peer_seconds) <= 0:
        yield Row(
            what, wanted, "a smaller text took as long as a larger one", MISSED if seconds <= 0 else NOT_RUN
        )
    else:
        rate = (text.megabytes - part.megabytes) / seconds
        peer_rate = (part.corpus_bytes - small.corpus_bytes) / 1e6 / peer_seconds
        note = f"; without start-up {peer_rate:.3f} MB/s against our {rate:.2f} MB/s"
        yield at_least(what, peer.times, [rate / peer_rate], digits=1, note=note)
    rate, peer_rate = part.megabytes / slice_seconds, part.corpus_bytes / 1e6 / whole
    name = f"the same on a slice of {part.corpus_bytes / 1e6:.1f} MB, whole processes both"
    yield Row(name, "", f"{rate / peer_rate:.1f}; {peer_rate:.3f} MB/s against our {rate:.2f} MB/s")


def _agreement(found: Found) -> Iterator[Row]:
    what = "tokenisation, blocks of 1 MB, nothing remembered before"
    fast = lambda: at_least(what, TOKENS_RATE, found.values("tokens", "rate"), "MB/s", digits=1)  # noqa: E731
    yield _row(found, what, f">= {TOKENS_RATE:g} MB/s", ("tokens",), fast)
    peer = [one["peer"] for one in found.runs.get("tokens", ()) if "peer" in one]
    if peer:
        yield Row("PaddleNLP's ErnieTokenizer, line by line", "", spread(peer, 2, "MB/s", max))
    same = found.runs.get("same_tokens", [{"same": {}}])[0]
    what = "lines with the same ids as by PaddleNLP's ErnieTokenizer"
    for rules, share in same["same"].items():
        text = f"{100 * share:.4f} % of {same['lines']:,}"
        name = f"{what}, rules `{rules}`{' (default)' if rules == same['default'] else ''}"
        yield (
            Row(name, "100 %", text, OK if share == 1 else MISSED)
            if rules == "ernie"
            else Row(name, "", text)
        )
    if not same["same"]:
        yield found.failed(what, "100 %", ("same_tokens",))
    what = "sentences that the default segmenter cuts like jieba"

    def words() -> Row:
        one = found.runs["same_words"][0]
        note = f" of {one['sentences']:,}; {one['differing']} differ"
        return at_least(what, SAME_WORDS, [100 * one["same"]], "%", digits=4, note=note)

    yield _row(found, what, f">= {SAME_WORDS:g} %", ("same_words",), words)


def _memory(found: Found, size: int) -> Iterator[Row]:
    for workers in (1, 2):
        name, wanted = f"large_{size}_{workers}", f"< {MEMORY_MB:g} MB"
        what = f"peak memory, {size:,} MB of text, {workers} worker{'s' * (workers > 1)}, largest process"
        if not found.has(name):
            yield found.failed(what, wanted, (f"large_{size}", name))
            continue
        worst, together = (
            max(getattr(run, key) for run in found.runs[name]) for key in ("peak_mb", "total_mb")
        )
        text = f"{worst:.0f} MB (all processes together {together:.0f} MB)"
        yield Row(what, wanted, text, OK if max(worst, together / workers) < MEMORY_MB else MISSED)


def _rates(found: Found, size: int) -> Iterator[Row]:
    for workers in (1, 2):
        name = f"large_{size}_{workers}"
        if found.has(name):
            megabytes = found.runs[f"large_{size}"][0].megabytes
            rates = [megabytes / seconds for seconds in found.seconds(name)]
            yield Row(
                f"rate at {size:,} MB, {workers} worker{'s' * (workers > 1)}",
                "",
                spread(rates, 2, "MB/s", max),
            )


def _workers(found: Found, size: int, judged: bool) -> Iterator[Row]:
    """Two workers beside one, and beside two runs of half the corpus at the same time, which share
    nothing: what those lose against one alone is the machine's, not ours. Judged is the second, of the
    corpus of which there are several rounds: these together, as two runs that are nearly alike differ less
    than the machine's speed from one to the next."""
    one, two, beside = (f"large_{size}_{name}" for name in ("1", "2", "beside"))
    alone = "of what two runs of half the corpus at a time reach that share nothing"
    what = f"efficiency of 2 workers, {size:,} MB, {alone}"

    def row() -> Row:
        theirs, ours = found.seconds(beside), found.seconds(two)
        rounds = [100 * a / b for a, b in zip(theirs, ours, strict=True)]
        note = (
            f" ({sum(theirs):.1f} s / {sum(ours):.1f} s, {len(rounds)} rounds together; round by round "
            f"{spread(rounds, 1, '%', statistics.median)}, the median)"
        )
        return at_least(what, EFFICIENCY, [100 * sum(theirs) / sum(ours)], "%", digits=1, note=note)

    if judged:
        yield _row(found, what, f">= {EFFICIENCY:g} %", (beside, two), row)
    for name, text in (
        (two, f"2 workers, {size:,} MB, of twice the rate of one worker alone"),
        (beside, "the same of the two runs: what this machine's second core gives"),
    ):
        if found.has(one, name):
            yield Row(text, "", f"{50 * sum(found.seconds(one)) / sum(found.seconds(name)):.1f} %")
