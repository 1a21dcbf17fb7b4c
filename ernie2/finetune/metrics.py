"""Scores of fine-tuning, all in percent (correlations times 100 too). No tensors here.

Letters: N samples, C classes. Where a metric is undefined (a constant prediction has no correlation) it is 0.

EM and F1 of Chinese reading comprehension follow CMRC 2018's published evaluator, version 5: answers are
lower-cased and stripped, listed punctuation is dropped. EM: equal to a reference. F1 counts Chinese
characters and the words between them: 2 L / (units of the prediction + units of the reference) with L the
length of the longest common run (not subsequence); the best over the references."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

import numpy as np

from ernie2.finetune.tagging import Entity, entities_of
from ernie2.finetune.task import FinetuneTask

MAJORITY_RULE = {
    "classification": "the most frequent class of train (mrr: the order of the file)",
    "regression": "the mean of train for every sample",
    "tagging": "the most frequent type in train of each string that is an entity there, longest match first",
    "span": "the whole passage",
}


def score(
    task: FinetuneTask, samples: Sequence[Any], predictions: Sequence[dict[str, Any]]
) -> dict[str, float]:
    """The task's metrics of the records that `features.decode` makes. Samples must have labels."""
    if task.kind == "span":
        answers = {record["id"]: record["answer"] for record in predictions}
        values = cmrc_scores(answers, {sample.qid: sample.references for sample in samples})
    elif task.kind == "tagging":
        found = [[Entity(e["type"], e["start"], e["end"]) for e in one["entities"]] for one in predictions]
        values = {"entity_f1": entity_f1(found, gold_entities(task, samples))}
    elif task.kind == "regression":
        pair = [record["score"] for record in predictions], [sample.label for sample in samples]
        values = {"pearson": pearson(*pair), "spearman": spearman(*pair)}
    elif task.multi_label:
        values = _label_scores(task, samples, predictions)
    else:
        values = _class_scores(task, samples, predictions)
    return {name: round(float(values[name]), 4) for name in task.metrics}


def majority(task: FinetuneTask, train: Sequence[Any], samples: Sequence[Any]) -> dict[str, float]:
    """What a rule that looks at no meaning reaches (`MAJORITY_RULE`): the chance level of a task."""
    if task.kind == "classification":
        ((label, _),) = Counter(sample.label for sample in train).most_common(1)
        key = (
            {"labels": [task.labels[i] for i in label]} if task.multi_label else {"label": task.labels[label]}
        )
        records = [key | {"probabilities": dict.fromkeys(task.labels, 0.0)}] * len(samples)
    elif task.kind == "regression":
        records = [{"score": 0.0}] * len(samples)  # any constant correlates with nothing
    elif task.kind == "tagging":
        records = _from_dictionary(task, train, samples)
    else:
        records = [{"id": sample.qid, "answer": sample.context} for sample in samples]
    return score(task, samples, records)


def _class_scores(
    task: FinetuneTask, samples: Sequence[Any], predictions: Sequence[dict[str, Any]]
) -> dict[str, float]:
    """NLPCC-DBQA's F1 is over all rows, at threshold 0.5, as in the released code (ERNIE issues 154, 732)."""
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef  # two seconds

    classes = [task.labels.index(record["label"]) for record in predictions]
    labels = np.array([sample.label for sample in samples])
    positive = task.labels.index(task.positive_label or task.labels[-1])
    macro = len(task.labels) > 2 and task.positive_label is None
    averaged = range(len(task.labels)) if macro else [positive]
    qids = [sample.qid or sample.text_a for sample in samples]
    scores = [record["probabilities"][task.labels[positive]] for record in predictions]
    return {
        "accuracy": 100 * accuracy_score(labels, classes),
        "macro_f1": 100 * f1_score(labels, classes, average="macro", zero_division=0),
        "micro_f1": 100 * f1_score(labels, classes, average="micro", zero_division=0),
        "f1": 100 * f1_score(labels, classes, labels=averaged, average="macro", zero_division=0),
        "mcc": 100 * matthews_corrcoef(labels, classes),
        "mrr": mrr(qids, labels == positive, scores),
    }


def _hot(task: FinetuneTask, sets: Sequence[Any]) -> np.ndarray:
    """Sets of class numbers (N) -> bool (N, C)."""
    return np.array([np.isin(np.arange(len(task.labels)), list(one)) for one in sets], bool)


def _label_scores(
    task: FinetuneTask, samples: Sequence[Any], predictions: Sequence[dict[str, Any]]
) -> dict[str, float]:
    """Of rows with any number of labels; accuracy: all labels of a row are right."""
    from sklearn.metrics import f1_score

    wanted = _hot(task, [sample.label for sample in samples])
    found = _hot(task, [[task.labels.index(name) for name in record["labels"]] for record in predictions])
    scores = {
        f"{a}_f1": 100 * f1_score(wanted, found, average=a, zero_division=0) for a in ("micro", "macro")
    }
    return scores | {"accuracy": 100 * float((wanted == found).all(axis=1).mean())}


def report(
    task: FinetuneTask, samples: Sequence[Any], predictions: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """By class or entity type precision, recall, F1 (percent) and how many there are. Of single classes a
    table of confusion too: a row for each label, a column for each predicted, in the task's order."""
    if task.kind == "tagging":
        gold = [set(map(tuple, entities)) for entities in gold_entities(task, samples)]
        found = [{(e["type"], e["start"], e["end"]) for e in one["entities"]} for one in predictions]
        counts: dict[str, list[int]] = {tag[2:]: [0, 0, 0] for tag in task.labels if tag.startswith("B-")}
        for wanted, predicted in zip(gold, found, strict=True):
            for place, entities in enumerate((wanted, predicted, wanted & predicted)):
                for kind, *_ in entities:
                    counts[kind][place] += 1
        return {"classes": {name: _rates(*three) for name, three in counts.items()}}
    index = {label: number for number, label in enumerate(task.labels)}
    several = task.multi_label
    wanted = _hot(task, [sample.label if several else [sample.label] for sample in samples])
    named = [one["labels"] if several else [one["label"]] for one in predictions]
    found = _hot(task, [[index[label] for label in labels] for labels in named])
    three = np.stack([wanted.sum(0), found.sum(0), (wanted & found).sum(0)], 1).tolist()
    made: dict[str, Any] = {"classes": {name: _rates(*three[n]) for name, n in index.items()}}
    return made if several else made | {"confusion": (wanted.T.astype(int) @ found.astype(int)).tolist()}


def _rates(there: int, predicted: int, right: int) -> dict[str, float]:
    shares = {"precision": right / max(predicted, 1), "recall": right / max(there, 1)}
    shares["f1"] = 2 * right / max(there + predicted, 1)
    return {key: round(100 * value, 2) for key, value in shares.items()} | {"support": there}


def gold_entities(task: FinetuneTask, samples: Sequence[Any]) -> list[list[Entity]]:
    """The entities that each tagged sample really has."""
    return [entities_of([task.labels[tag] for tag in sample.tags], sample.tokens.spans) for sample in samples]


def _from_dictionary(
    task: FinetuneTask, train: Sequence[Any], samples: Sequence[Any]
) -> list[dict[str, Any]]:
    kinds: dict[str, Counter[str]] = {}
    for sample, entities in zip(train, gold_entities(task, train)):
        for kind, start, stop in entities:
            kinds.setdefault(sample.tokens.text[start:stop], Counter())[kind] += 1
    lengths = sorted({len(word) for word in kinds}, reverse=True)
    records = []
    for text in (sample.tokens.text for sample in samples):
        entities, start = [], 0
        while start < len(text):
            stop = next((start + n for n in lengths if text[start : start + n] in kinds), None)
            if stop:
                kind = kinds[text[start:stop]].most_common(1)[0][0]
                entities.append({"type": kind, "start": start, "end": stop})
            start = stop or start + 1
        records.append({"entities": entities})
    return records


def pearson(predicted: Sequence[float], values: Sequence[float]) -> float:
    """Pearson's correlation (N), in percent."""
    pair = np.array([predicted, values], np.float64)
    return 100 * float(np.corrcoef(pair)[0, 1]) if pair.std(axis=1).min() > 1e-12 else 0.0


def spearman(predicted: Sequence[float], values: Sequence[float]) -> float:
    """Spearman's rank correlation, in percent; ties get the mean of their ranks."""
    from scipy.stats import rankdata

    return pearson(rankdata(predicted), rankdata(values))


def mrr(qids: Sequence[str], relevant: Sequence[bool], scores: Sequence[float]) -> float:
    """Mean reciprocal rank of the first relevant row of each question, in percent, as in the released code:
    rows are ranked by score (higher is better), ties in file order; no relevant row counts 0."""
    questions: dict[str, list[bool]] = {qid: [] for qid in qids}
    for row in sorted(range(len(qids)), key=lambda row: -scores[row]):
        questions[qids[row]].append(relevant[row])
    reciprocal = [1 / (rows.index(True) + 1) if any(rows) else 0 for rows in questions.values()]
    return 100 * float(np.mean(reciprocal))


def entity_f1(predicted: Sequence[Sequence[Entity]], labels: Sequence[Sequence[Entity]]) -> float:
    """Micro-averaged F1 of the entities of N samples, in percent: right when type, start and stop are (as
    conlleval counts)."""
    right = sum(len(set(found) & set(there)) for found, there in zip(predicted, labels, strict=True))
    return 100 * 2 * right / max(1, sum(map(len, predicted)) + sum(map(len, labels)))


# The evaluator also lists the two-character "……", which a test of single characters never meets: it stays.
PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
_CHINESE = re.compile("([\u4e00-\u9fa5])")

# Words follow the Penn Treebank's conventions, as in the evaluator: brackets, quotes and most marks stand
# alone, a comma or a point between digits does not, clitics ('s, n't) and a final full stop are cut off.
_APART = re.compile(r"([;@#$%&?!\[\](){}<>\"«»‘„]|\.\.\.|,(?!\d)|(?<!\.)\.(?=[\])}>\"']*\s*$)|'(?=\s|$))")
_CLITIC = re.compile(r"(?<=[^\s'])('(?:s|m|d|ll|re|ve)|n't)(?=\s|$)")


def normalise(text: str) -> str:
    """The text that EM compares: lower case, stripped, punctuation dropped."""
    return "".join(character for character in text.lower().strip() if character not in PUNCTUATION)


def units(text: str) -> list[str]:
    """The units that F1 counts: every Chinese character, and the words between them; punctuation dropped."""
    parts = _CHINESE.split(normalise(text))
    return [unit for part in parts for unit in _CLITIC.sub(r" \1 ", _APART.sub(r" \1 ", part)).split()]


def answer_f1(prediction: str, references: Sequence[str]) -> float:
    """F1 of one answer, 0 to 1: the best over its references."""
    found, best = units(prediction), 0.0
    for wanted in map(units, references):
        common = SequenceMatcher(None, found, wanted, autojunk=False).find_longest_match().size
        best = max(best, 2 * common / max(1, len(found) + len(wanted)))
    return best


def cmrc_scores(predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """EM and F1 over all questions, in percent; a question (id -> answers) without a prediction counts 0."""
    answered = [(predictions[qid], wanted) for qid, wanted in references.items() if qid in predictions]
    equal = sum(normalise(answer) in map(normalise, wanted) for answer, wanted in answered)
    scale = 100.0 / max(1, len(references))
    return {"cmrc_em": scale * equal, "cmrc_f1": scale * sum(answer_f1(*pair) for pair in answered)}
