"""Scores of fine-tuning, all in percent (the paper's unit; correlations times 100 too). No tensors here.

Letters: N samples, C classes. Where a metric is undefined (a constant prediction has no correlation) it is 0.

EM and F1 of Chinese reading comprehension follow CMRC 2018's published evaluator, version 5: answers are
lower-cased and stripped, a fixed list of punctuation is dropped. EM: equal to one of the references. F1: text
is cut into Chinese characters and, between them, words; with L the length of the longest common run of such
units, F1 = 2 P R / (P + R), P = L / units of the prediction, R = L / units of the reference; the best over
the references. The longest common *run* (substring), not subsequence: so the evaluator counts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ernie2.finetune.tagging import Entity, entities_of
from ernie2.finetune.task import FinetuneTask
from ernie2.strict import ConfigError


def score(
    task: FinetuneTask, samples: Sequence[Any], predictions: Sequence[dict[str, Any]]
) -> dict[str, float]:
    """The task's metrics of the records that `decoding.decode` makes. Samples must have labels."""
    if task.kind == "span":
        values = cmrc_scores(
            {r["id"]: r["answer"] for r in predictions}, {s.qid: s.references for s in samples}
        )
    elif task.kind == "tagging":
        found = [
            [Entity(e["type"], e["start"], e["end"]) for e in record["entities"]] for record in predictions
        ]
        values = {"entity_f1": entity_f1(found, gold_entities(task, samples))}
    elif task.kind == "regression":
        scores, labels = [record["score"] for record in predictions], [sample.label for sample in samples]
        values = {"pearson": pearson(scores, labels), "spearman": spearman(scores, labels)}
    else:
        classes = np.array([task.labels.index(record["label"]) for record in predictions])
        positive = task.labels[task.positive_index]
        values = _class_scores(
            task, samples, classes, [record["probabilities"][positive] for record in predictions]
        )
    return {name: round(values[name], 4) for name in task.metrics}


MAJORITY_RULE = {
    "classification": "the most frequent class of train (mrr: random order)",
    "regression": "the mean of train for every sample",
    "tagging": "the most frequent type in train of each string that is an entity there, longest match first",
    "span": "the whole passage",
}


def majority(task: FinetuneTask, train: Sequence[Any], samples: Sequence[Any]) -> dict[str, float]:
    """What a rule that looks at no meaning reaches (`MAJORITY_RULE`): the chance level of a task."""
    if task.kind == "classification":
        most = Counter(sample.label for sample in train).most_common(1)[0][0]
        values = _class_scores(task, samples, np.full(len(samples), most), None)
    elif task.kind == "regression":
        values = {"pearson": 0.0, "spearman": 0.0}  # a constant correlates with nothing
    elif task.kind == "tagging":
        values = {
            "entity_f1": entity_f1(_from_dictionary(task, train, samples), gold_entities(task, samples))
        }
    else:
        values = cmrc_scores({s.qid: s.context for s in samples}, {s.qid: s.references for s in samples})
    return {name: round(values[name], 4) for name in task.metrics}


def _class_scores(
    task: FinetuneTask, samples: Sequence[Any], classes: np.ndarray, scores: Sequence[float] | None
) -> dict[str, float]:
    """Metrics of predicted classes (N); `scores` (N) rank the rows of a question, None: a random order."""
    labels, positive = np.array([sample.label for sample in samples]), task.positive_index
    macro = len(task.labels) > 2 and task.positive_label is None
    values = {
        "accuracy": accuracy(classes, labels),
        "f1": macro_f1(classes, labels, len(task.labels)) if macro else f1(classes, labels, positive),
        "mcc": mcc(classes, labels),
    }
    if "mrr" in task.metrics:
        qids, relevant = [sample.qid or sample.text_a for sample in samples], labels == positive
        values["mrr"] = random_mrr(qids, relevant) if scores is None else mrr(qids, scores, relevant)
    return values


def gold_entities(task: FinetuneTask, samples: Sequence[Any]) -> list[list[Entity]]:
    """The entities that each tagged sample really has."""
    return [entities_of([task.labels[tag] for tag in sample.tags], sample.tokens.spans) for sample in samples]


def _from_dictionary(task: FinetuneTask, train: Sequence[Any], samples: Sequence[Any]) -> list[list[Entity]]:
    kinds: dict[str, Counter[str]] = {}
    for sample, entities in zip(train, gold_entities(task, train)):
        for entity in entities:
            kinds.setdefault(sample.tokens.text[entity.start : entity.stop], Counter())[entity.type] += 1
    lengths = sorted({len(word) for word in kinds}, reverse=True)
    found: list[list[Entity]] = []
    for text in (sample.tokens.text for sample in samples):
        found.append([])
        position = 0
        while position < len(text):
            size = next((n for n in lengths if text[position : position + n] in kinds), 0)
            if size:
                kind = kinds[text[position : position + size]].most_common(1)[0][0]
                found[-1].append(Entity(kind, position, position + size))
            position += size or 1
    return found


def accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Share of predictions (N) that equal the labels (N), in percent."""
    return 100.0 * float(np.mean(np.asarray(predicted) == np.asarray(labels)))


def f1(predicted: np.ndarray, labels: np.ndarray, positive: int = 1) -> float:
    """F1 of one class over all samples, in percent. Positive are those predicted (N) as `positive`.

    NLPCC-DBQA's F1 is this one too: over all rows, at the class of higher probability (threshold 0.5), as in
    the released fine-tuning code (ERNIE issues 154 and 732)."""
    predicted, labels = np.asarray(predicted) == positive, np.asarray(labels) == positive
    return _f1(int(np.sum(predicted & labels)), int(predicted.sum()), int(labels.sum()))


def macro_f1(predicted: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """Mean of the F1 of every class 0 ... C - 1, in percent; a class neither predicted nor there counts 0."""
    return float(np.mean([f1(predicted, labels, positive) for positive in range(classes)]))


def mcc(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Matthews correlation, in percent (CoLA); for C > 2 classes Gorodkin's generalisation of it."""
    classes = np.union1d(predicted, labels)
    return _correlation(np.equal.outer(predicted, classes), np.equal.outer(labels, classes))


def pearson(predicted: np.ndarray, values: np.ndarray) -> float:
    """Pearson's correlation of two rows (N), in percent. Raises ConfigError where a number is not finite."""
    return _correlation(_finite(predicted), _finite(values))


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Of two rows (N), or of two matrices (N, C) whose columns are centred each by itself."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    spread = np.sqrt((x * x).sum() * (y * y).sum())
    return 100.0 * float((x * y).sum() / spread) if spread > 1e-12 else 0.0


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

    As in the released fine-tuning code: rows of a question are ranked by score, ties in file order; a
    question without a relevant row counts 0.

    Args:
        qids: question of each row (N).
        scores: score of each row (N), higher is better.
        relevant: bool (N)."""
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
    """Micro-averaged F1 of entities, in percent: right when type, start and stop are (as conlleval counts).

    Args:
        predicted: entities found in each sample (N).
        labels: entities that are there (N)."""
    right = sum(len(set(found) & set(there)) for found, there in zip(predicted, labels, strict=True))
    return _f1(right, sum(map(len, predicted)), sum(map(len, labels)))


def _f1(right: int, predicted: int, there: int) -> float:
    return 100.0 * 2 * right / (predicted + there) if right else 0.0


# Characters the evaluator drops. It also lists the two-character "……", which a test of single characters
# never meets: an ellipsis therefore stays, here as there.
PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
_CHINESE = re.compile("[\u4e00-\u9fa5]")

# Words between Chinese characters follow the Penn Treebank's conventions, as the evaluator's tokeniser does:
# brackets, quotes and most marks stand alone, a comma or a point between digits does not, clitics ('s, n't)
# are cut off, a final full stop too.
_APART = re.compile(r"([;@#$%&?!\[\](){}<>\"«»‘„]|\.\.\.|,(?!\d)|(?<!\.)\.(?=[\])}>\"']*\s*$)|'(?=\s|$))")
_CLITIC = re.compile(r"(?<=[^\s'])('(?:s|m|d|ll|re|ve)|n't)(?=\s|$)")


def normalise(text: str) -> str:
    """The text that EM compares: lower case, stripped, punctuation dropped."""
    return "".join(character for character in text.lower().strip() if character not in PUNCTUATION)


def units(text: str) -> list[str]:
    """The units that F1 counts: every Chinese character, and the words between them; punctuation dropped."""
    result: list[str] = []
    between = ""
    for character in normalise(text):
        if _CHINESE.match(character):
            result += _words(between)
            result.append(character)
            between = ""
        else:
            between += character
    return result + _words(between)


def _words(text: str) -> list[str]:
    if not text:
        return []
    return _CLITIC.sub(r" \1 ", _APART.sub(r" \1 ", text)).split()


def longest_common_run(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest run of units that stands in both sequences."""
    best = 0
    above = [0] * (len(b) + 1)  # above[j]: length of the common run that ends at a[i - 1], b[j - 1]
    for unit in a:
        row = [0] * (len(b) + 1)
        for j, other in enumerate(b):
            if unit == other:
                row[j + 1] = above[j] + 1
                best = max(best, row[j + 1])
        above = row
    return best


def answer_f1(prediction: str, references: Sequence[str]) -> float:
    """F1 of one answer, 0 to 1: the best over its references."""
    found = units(prediction)
    best = 0.0
    for reference in references:
        wanted = units(reference)
        common = longest_common_run(found, wanted)
        if common:
            best = max(best, 2 * common / (len(found) + len(wanted)))
    return best


def answer_em(prediction: str, references: Sequence[str]) -> float:
    """1 where the answer equals one of its references after `normalise`, else 0."""
    return float(normalise(prediction) in {normalise(reference) for reference in references})


def cmrc_scores(predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """EM and F1 over all questions, in percent; a question without a prediction counts 0.

    Args:
        predictions: question id -> answer.
        references: question id -> its reference answers."""
    answered = [(predictions[qid], wanted) for qid, wanted in references.items() if qid in predictions]
    total = max(1, len(references))
    return {
        "cmrc_em": 100.0 * sum(answer_em(*pair) for pair in answered) / total,
        "cmrc_f1": 100.0 * sum(answer_f1(*pair) for pair in answered) / total,
    }
