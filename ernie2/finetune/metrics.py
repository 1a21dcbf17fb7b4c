"""Fine-tuning metrics, all in percent (the paper's unit; correlations times 100 too). No tensors here.

Letters: N samples, C classes. Where a metric is undefined (a constant prediction has no correlation) it is 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ernie2.finetune.tagging import Entity
from ernie2.strict import ConfigError


def accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Share of predictions (N) that equal the labels (N), in percent."""
    return 100.0 * float(np.mean(np.asarray(predicted) == np.asarray(labels)))


def f1(predicted: np.ndarray, labels: np.ndarray, positive: int = 1) -> float:
    """F1 of one class over all samples, in percent. A sample is positive where its predicted class (N) is `positive`.

    NLPCC-DBQA's F1 is this one too: over all rows, at the class of higher probability (threshold 0.5), as in the
    released fine-tuning code (ERNIE issues 154 and 732).
    """
    predicted, labels = np.asarray(predicted) == positive, np.asarray(labels) == positive
    return _f1(int(np.sum(predicted & labels)), int(predicted.sum()), int(labels.sum()))


def macro_f1(predicted: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """Mean of the F1 of every class 0 ... C - 1, in percent; a class neither predicted nor there counts 0."""
    return float(np.mean([f1(predicted, labels, positive) for positive in range(classes)]))


def mcc(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Matthews correlation, in percent (CoLA); for C > 2 classes Gorodkin's generalisation of it."""
    predicted, labels = np.asarray(predicted, np.int64), np.asarray(labels, np.int64)
    classes = int(max(predicted.max(), labels.max())) + 1
    table = np.zeros((classes, classes))
    np.add.at(table, (labels, predicted), 1)
    total, right = table.sum(), np.trace(table)
    true, guessed = table.sum(axis=1), table.sum(axis=0)
    spread = np.sqrt(total**2 - true @ true) * np.sqrt(total**2 - guessed @ guessed)
    return 100.0 * float((right * total - true @ guessed) / spread) if spread else 0.0


def pearson(predicted: np.ndarray, values: np.ndarray) -> float:
    """Pearson's correlation of two rows (N), in percent. Raises ConfigError where a number is not finite."""
    x, y = _finite(predicted), _finite(values)
    x, y = x - x.mean(), y - y.mean()
    spread = np.sqrt((x @ x) * (y @ y))
    return 100.0 * float(x @ y / spread) if spread > 1e-12 else 0.0


def spearman(predicted: np.ndarray, values: np.ndarray) -> float:
    """Spearman's rank correlation, in percent; ties get the mean of their ranks."""
    return pearson(average_ranks(predicted), average_ranks(values))


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1 (N); equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(_finite(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def _finite(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        raise ConfigError(
            f"{np.sum(~np.isfinite(values))} of {values.size} numbers to correlate are not finite"
        )
    return values


def mrr(qids: Sequence[str], scores: np.ndarray, relevant: np.ndarray) -> float:
    """Mean reciprocal rank of the first relevant row of each question, in percent (NLPCC-DBQA).

    As in the released fine-tuning code: rows of a question are ranked by score, ties in file order; a question without
    a relevant row counts 0.

    Args:
        qids: question of each row (N).
        scores: score of each row (N), higher is better.
        relevant: bool (N).
    """
    scores, relevant = np.asarray(scores, np.float64), np.asarray(relevant, bool)
    _, question = np.unique(np.asarray(qids), return_inverse=True)
    order = np.lexsort((-scores, question))  # stable: ties stay in file order
    question, relevant = question[order], relevant[order]
    starts = np.flatnonzero(np.r_[True, question[1:] != question[:-1]])
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)])) + 1
    best = np.zeros(len(starts))
    np.maximum.at(best, question, relevant / rank)
    return 100.0 * float(best.mean())


def random_mrr(qids: Sequence[str], relevant: np.ndarray) -> float:
    """Expected `mrr` of a random order, in percent: what mrr is to be compared with."""
    _, question = np.unique(np.asarray(qids), return_inverse=True)
    rows = np.bincount(question)
    positives = np.bincount(question, weights=np.asarray(relevant, np.float64)).astype(int)
    return 100.0 * float(np.mean([_expected_reciprocal_rank(n, p) for n, p in zip(rows, positives)]))


def _expected_reciprocal_rank(rows: int, positives: int) -> float:
    """Mean over all orders of 1 / rank of the first of `positives` among `rows`."""
    expected, still_none = 0.0, 1.0  # still_none: chance that no earlier rank held a positive one
    for rank in range(1, rows - positives + 2 if positives else 0):
        here = positives / (rows - rank + 1)
        expected += still_none * here / rank
        still_none *= 1 - here
    return expected


def entity_f1(predicted: Sequence[Sequence[Entity]], labels: Sequence[Sequence[Entity]]) -> float:
    """Micro-averaged F1 of entities, in percent: right when type, start and stop are (conlleval's strict count).

    Args:
        predicted: entities found in each sample (N).
        labels: entities that are there (N).
    """
    right = sum(len(set(found) & set(there)) for found, there in zip(predicted, labels, strict=True))
    return _f1(right, sum(map(len, predicted)), sum(map(len, labels)))


def _f1(right: int, predicted: int, there: int) -> float:
    return 100.0 * 2 * right / (predicted + there) if right else 0.0
