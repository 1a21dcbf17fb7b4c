"""EM and F1 of Chinese reading comprehension by CMRC 2018's published definition (its evaluator, version 5). No
tensors.

Answers are lower-cased and stripped, a fixed list of punctuation is dropped. EM: equal to one of the references. F1:
text is cut into Chinese characters and, between them, words; with L the length of the longest common run of such units,
F1 = 2 P R / (P + R), P = L / units of the prediction, R = L / units of the reference; the best over the references.
The longest common *run* (substring), not subsequence: so the evaluator counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

# Characters the evaluator drops. It also lists the two-character "……", which a test of single characters never meets:
# an ellipsis therefore stays, here as there.
PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
_CHINESE = re.compile("[\u4e00-\u9fa5]")

# Words between Chinese characters follow the Penn Treebank's conventions, as the evaluator's tokeniser does: brackets,
# quotes and most marks stand alone, a comma or a point between digits does not, clitics ('s, n't) are cut off, a final
# full stop too.
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
        references: question id -> its reference answers.
    """
    answered = [(predictions[qid], wanted) for qid, wanted in references.items() if qid in predictions]
    total = max(1, len(references))
    return {
        "cmrc_em": 100.0 * sum(answer_em(*pair) for pair in answered) / total,
        "cmrc_f1": 100.0 * sum(answer_f1(*pair) for pair in answered) / total,
    }
