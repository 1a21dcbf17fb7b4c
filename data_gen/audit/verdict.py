"""What is fine, what is odd, and what is wrong with the shards of a task, in words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from data_gen.audit.measure import LEVELS
from data_gen.audit.task import TaskAudit
from data_gen.readable import cut

SIGNS = {"good": "●", "odd": "◐", "bad": "▼"}
FEW_CLASSES = 3
"""In a head of so few classes one without an example is always wrong."""
ENOUGH, TAIL = 20, 5
"""Examples of a class, on average, and of the rarest with any, below which one without may be chance."""
DOMINATES, LEANS = 0.95, 0.8
UNKNOWN, PADDED, REPEATED, LEAKED, REJECTED, KNOWLEDGE = 0.01, 0.1, 0.05, 0.005, 0.5, 0.002
"""Shares beyond (knowledge: below) which something is odd."""
UNEVEN = 1.5
"""The largest class over an even share, where the classes should be even, beyond which it is odd."""
RARE, LISTED = 0.5, 12
"""In heads of LISTED classes or fewer, the smallest class over an even share, below which it is odd."""
FEW_DEV = 100
APART, BEYOND_CHANCE = 0.2, 2.0
"""Total variation between train's and dev's classes that is odd, if also so many times that of chance."""
SHORT = 10
NAMED, NAMED_UNKNOWN = 5, 3
WIDE = re.compile("[０-９Ａ-Ｚａ-ｚ]")
"""What data.normalise_width changes."""


@dataclass
class Verdict:
    """The verdict on a task.

    Attributes:
        bad: What makes the audit fail.
        odd: What somebody should look at.
        small: What is odd because there is little text; `small_corpus` may say it once for all tasks.
        fine: What is as it should be."""

    bad: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    small: list[str] = field(default_factory=list)
    fine: list[str] = field(default_factory=list)

    @property
    def state(self) -> Literal["bad", "odd", "good"]:
        """The worst there is."""
        return "bad" if self.bad else "odd" if self.odd or self.small else "good"


def judge(task: TaskAudit, allow_missing: bool = False) -> Verdict:
    """Judges one task.

    Args:
        task: What was measured.
        allow_missing: Whether a class without an example is only odd."""
    verdict = Verdict(bad=[f"damaged: {fault}" for fault in task.damage])
    if not task.splits:
        return verdict
    verdict.bad += [fault for measured in task.splits.values() for fault in measured.faults]
    if task.stale:
        again = "run data_gen again" if task.imported is None else "import them again"
        verdict.odd.append(
            f"{task.generator.task.path.name} is not the one these shards were made with; {again}"
        )
    _splits(task, verdict)
    for head in task.splits["train"].labels:
        _labels(task, head, verdict, allow_missing)
        if head == "sentence":
            _apart(task, head, verdict)
    _tokens(task, verdict)
    if task.generator.task.has_masked_lm:
        _masks(task, verdict)
    _losses(task, verdict)
    return verdict


def _splits(task: TaskAudit, verdict: Verdict) -> None:
    train, dev = task.splits["train"], task.splits["dev"]
    share, source, text = "raise data.dev_share", "is the corpus in data.corpus twice?", "give more text"
    if task.imported is not None:
        share, source, text = (
            "raise --dev-share",
            "are the same lines in the imported files twice?",
            "import more lines",
        )
        share = "name more files with --dev" if task.imported.get("dev_files") else share
    if not train.samples:
        verdict.bad.append("no training example")
        return
    if not dev.samples:
        verdict.odd.append(f"no dev example: {share}")
    elif dev.samples < FEW_DEV:
        count = f"{dev.samples} dev example{'s' * (dev.samples > 1)}"
        verdict.small.append(f"only {count}: a noisy measure; {share} or {text}")
    if train.percentile(0.5) < SHORT:
        verdict.odd.append(f"half of the examples have {train.percentile(0.5)} tokens or fewer")
    if train.repeated_share > REPEATED:
        verdict.odd.append(
            f"{train.repeated_share:.1%} of the training examples looked at repeat another one: {source}"
        )
    shared = len(train.digests.keys() & dev.digests.keys())
    if shared > LEAKED * dev.samples:
        verdict.odd.append(
            f"{shared:,} of {dev.samples:,} dev examples occur word for word in the training examples "
            "looked into"
        )


def _labels(task: TaskAudit, head: str, verdict: Verdict, allow_missing: bool) -> None:
    counts, used = task.splits["train"].labels[head], task.used(head)
    total, unit = int(counts.sum()), "tokens" if head == "token" else "examples"
    if not total:
        if task.splits["train"].samples:
            verdict.bad.append(f"no label of head {head} at all")
        return
    top, missing = int(counts.argmax()), used[counts[used] == 0]
    share = counts[top] / total
    if head == "sentence" and (expected := missing[np.isin(missing, list(task.no_such_label))]).size:
        verdict.odd.append(
            f"{_missing(task, expected, len(used))}, as is to be expected: the imported format has no label "
            f"for {'it' if expected.size == 1 else 'them'} (see --labels)"
        )
        missing = np.setdiff1d(missing, expected)
    one_token_class = head == "token" and np.count_nonzero(counts) == 1
    if len(missing) and not one_token_class:
        words = _missing(task, missing, len(used))
        rarest = int(counts[counts > 0].min())
        chance = len(used) > FEW_CLASSES and (total < ENOUGH * len(used) or rarest < TAIL)
        if chance:
            words += f"; with {total:,} {unit} for {len(used)} classes that may be chance: "
            words += "give more text" if task.imported is None else "import more lines"
        (verdict.small if chance else verdict.odd if allow_missing else verdict.bad).append(words)
    if one_token_class:
        verdict.bad.append(f"all labelled tokens have class {top} ({task.name_of(top)}): nothing to learn")
    elif share > LEANS:
        (verdict.bad if share > DOMINATES else verdict.odd).append(
            f"{share:.1%} of the {unit} have class {top} ({task.name_of(top)})"
        )
    _balance(task, head, verdict, share, top)


def _balance(task: TaskAudit, head: str, verdict: Verdict, share: float, top: int) -> None:
    """Holds the classes against what is expected; `share` is that of class `top`, the largest."""
    counts, used, expected = task.splits["train"].labels[head], task.used(head), task.expectation(head)
    total, rare = int(counts.sum()), int(used[counts[used].argmin()])
    least = counts[rare] / total
    over = [] if expected.cap is None else np.flatnonzero(counts / total > 1.02 * expected.cap + 1 / total)
    if len(over):
        verdict.odd.append(f"{len(over)} of {len(used)} classes are above what is allowed: {expected.words}")
    elif share > LEANS or not least:
        return  # said already
    elif expected.even is not None and expected.cap is None and share > UNEVEN * expected.even:
        verdict.odd.append(
            f"the classes are uneven: {share:.1%} have class {top} ({task.name_of(top)}), even would be "
            f"{expected.even:.1%}"
        )
    elif expected.even is not None and len(used) <= LISTED and least < RARE * expected.even:
        verdict.odd.append(
            f"only {least:.1%} have class {rare} ({task.name_of(rare)}), even would be {expected.even:.1%}"
        )
    else:
        low, high, unit = f"{least:.1%}", f"{share:.1%}", "tokens" if head == "token" else "examples"
        verdict.fine.append(
            f"{len(used)} classes, " + (f"{low} each" if low == high else f"{low} to {high} of the {unit}")
        )


def _apart(task: TaskAudit, head: str, verdict: Verdict) -> None:
    """Whether the dev split has other shares of the classes than the training split, by more than chance."""
    train, dev = (task.splits[split].labels[head] for split in ("train", "dev"))
    if dev.sum() < FEW_DEV or not train.any():
        return
    shares, dev_shares = train / train.sum(), dev / dev.sum()
    distance = np.abs(shares - dev_shares).sum() / 2
    # by chance alone: the mean of |normal| for each class
    chance = np.sqrt(2 * shares * (1 - shares) / (np.pi * dev.sum())).sum() / 2
    if distance > max(APART, BEYOND_CHANCE * chance):
        far = int(np.abs(shares - dev_shares).argmax())
        verdict.odd.append(
            f"dev has other classes than train: {distance:.0%} of its examples would have to change theirs; "
            f"class {far} ({task.name_of(far)}) is {shares[far]:.1%} of train, {dev_shares[far]:.1%} of dev"
        )


def _missing(task: TaskAudit, missing: np.ndarray, used: int) -> str:
    names = ", ".join(f"{label} {task.name_of(label)}" for label in missing[:NAMED].tolist())
    more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
    if len(missing) == 1:
        return f"class {names} has no example"
    return f"{len(missing)} of {used} classes have no example: {names}{more}"


def _tokens(task: TaskAudit, verdict: Verdict) -> None:
    train = task.splits["train"]
    if train.unknown_share > UNKNOWN:
        verdict.odd.append(f"{train.unknown_share:.1%} unknown tokens{_why_unknown(task)}")
    elif train.ordinary:
        verdict.fine.append(f"{_small(train.unknown_share)} unknown tokens")
    if task.padding is not None:
        words = f"{task.padding.planned:.1%} padding"
        if task.padding.planned > PADDED:
            verdict.odd.append(
                f"{words} at this batch size: raise batch.pool_batches, or lower batch.micro_tokens"
            )
        else:
            verdict.fine.append(words)


def _why_unknown(task: TaskAudit) -> str:
    """What is unknown most often, as far as it was counted, and what may help."""
    texts = [text for text, _ in task.unknown_texts]
    if not texts:
        return (
            ": is this the right vocabulary?"
            if task.imported is None
            else ": is it the vocabulary of the imported ids?"
        )
    also = ", or data.normalise_width=true," if any(map(WIDE.search, texts)) else ""
    names = " · ".join(cut(text, 24) for text in texts[:NAMED_UNKNOWN])  # a comma may be one of them
    return f", most often {names}: another vocabulary{also} may help"


def _masks(task: TaskAudit, verdict: Verdict) -> None:
    units = task.splits["train"].units
    if not units:
        return
    fine = []
    for level, plural, remedy in (
        ("phrase", "phrases", "phrases of several words in data.entity_dicts"),
        ("entity", "entities", "entities of several words in data.entity_dicts"),
    ):
        share = units[level].shares[LEVELS.index(level)]
        if not share:
            if task.imported is None:
                remedy = f"give {remedy}"
            elif task.imported.get("format") == "baidu":
                remedy = "Baidu's format knows words only, so that the levels are alike"
            else:
                remedy = f'give spans of "{level}" in the imported lines'
            verdict.odd.append(f"no {level} of several words is ever masked: {remedy}")
        elif share < KNOWLEDGE:
            verdict.odd.append(
                f"only {share:.2%} of the tokens masked at level {level} are in {plural} of several words: "
                + (
                    "does data.entity_dicts fit the text?"
                    if task.imported is None
                    else "are the spans as meant?"
                )
            )
        else:
            fine.append(f"{share:.1%} in {plural}")
    if fine:
        verdict.fine.append(f"masked at their levels: {', '.join(fine)} of several words")


def _losses(task: TaskAudit, verdict: Verdict) -> None:
    rejected, accepted = task.rejected, sum((task.statistics.get("accepted") or {}).values())
    total = sum(rejected.values())
    if total > REJECTED * (total + accepted):
        reason, count = rejected.most_common(1)[0]
        who = "generator" if task.imported is None else "import"
        verdict.odd.append(
            f"the {who} rejected more than it made ({total:,} against {accepted:,}): mostly {reason} "
            f"({count:,})"
        )


def _small(share: float) -> str:
    return (
        "no"
        if not share
        else f"{share:.1%}"
        if share >= 0.001
        else f"{share:.2%}"
        if share >= 0.0001
        else "under 0.01%"
    )


def failures(verdicts: Sequence[tuple[TaskAudit, Verdict]]) -> Iterator[str]:
    """One line for each thing that makes the audit fail."""
    for task, verdict in verdicts:
        yield from (f"{task.name}: {words}" for words in verdict.bad)


def small_corpus(verdicts: Sequence[tuple[TaskAudit, Verdict]]) -> str | None:
    """One remark in place of what each task says of its size, where most have little text.

    It is taken from them: a small corpus, as that of the examples, makes no task odd; being alone in it does.
    """
    small = [(task, verdict) for task, verdict in verdicts if verdict.small]
    if len(small) < 2 or 2 * len(small) <= len(verdicts):
        return None
    few = [task.splits["dev"].samples for task, _ in small if 0 < task.splits["dev"].samples < FEW_DEV]
    rare = [
        f"{task.name}: {words.rpartition(': ')[0]}"
        for task, verdict in small
        for words in verdict.small
        if " no example" in words
    ]
    for _, verdict in small:
        verdict.small.clear()
    words = (
        [f"{len(few)} of {len(verdicts)} tasks have {min(few)} to {max(few)} dev examples, a noisy measure"]
        if few
        else []
    )
    return "a small corpus, as that of the examples is: " + "; ".join(
        [*words, *rare, "give more text, or raise data.dev_share"]
    )
