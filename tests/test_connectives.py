"""data_gen.generators.connectives: the two lists, and what opens a sentence."""

from __future__ import annotations

import numpy as np
import pytest

from data_gen.generators import connectives
from ernie2.characters import code_points
from ernie2.config import ConfigError

NONE = connectives.NO_CONNECTIVE


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("en", "However, he left.", ("however", 9)),
        ("en", "However he left.", (NONE, 8)),
        ("en", "But he left.", ("but", 4)),
        ("en", "BUT HE LEFT.", ("but", 4)),
        ("en", "Button up.", None),
        ("en", "In other words, no.", ("in other words", 16)),
        ("en", "He left.", None),
        ("en", "", None),
        ("zh", "因此，他走了。", ("因此", 3)),
        ("zh", "因此他走了。", ("因此", 2)),
        ("zh", "而且他走了。", ("而且", 2)),
        ("zh", "例如：水。", ("例如", 3)),
        ("zh", "第一次去。", (NONE, 2)),
        ("zh", "这样一来，好了。", ("这样一来", 5)),
        ("zh", "他走了。", None),
        ("zh", "故", ("故", 1)),
    ],
)
def test_longest_connective_wins(language: str, text: str, expected: tuple | None) -> None:
    found = connectives.opening_connective(text, language)
    if found is not None:
        found = (connectives.class_names(language)[found[0]], found[1])
    assert found == expected
    if expected is not None:
        assert connectives.may_open(code_points(text), np.array([0]), language).tolist() == [True]


def test_few_sentences_may_open_with_a_connective() -> None:
    text = "他走了。但他不是。不知。这里。因此呢。然"
    at = [0, 4, 9, 12, 15, 19]
    assert connectives.may_open(code_points(text), np.array(at), "zh").tolist() == [
        False,
        True,
        False,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("none", "one"),
    [
        ("最后一次去。", "最后他去了。"),
        ("最后选中的头像是它。", "最后，选中的头像是它。"),
        ("其次是花厅。", "其次要防说话。"),
        ("突然间天黑了。", "突然天黑了。"),
        ("这样做有好处。", "这样便有好处。"),
        ("通常情况下会停。", "通常他会停。"),
        ("不过两年就停了。", "不过一直没有停。"),
        ("同样重要的是水。", "同样，水也重要。"),
        ("还有免费的水。", "还有，水免费。"),
        ("另外两位没来。", "另外他没来。"),
        ("那么大的水。", "那么为什么呢？"),
        ("但见一片水。", "但一片水也没有。"),
        ("即如前人所说。", "即：前人所说。"),
        ("再说那座桥。", "再说，桥也塌了。"),
    ],
)
def test_what_follows_shows_that_it_is_no_connective(none: str, one: str) -> None:
    assert connectives.opening_connective(none, "zh")[0] == 0
    assert connectives.opening_connective(one, "zh")[0] > 0


def test_connective_lists() -> None:
    for language in ("zh", "en"):
        names = connectives.class_names(language)
        assert names[0] == NONE and len(set(names)) == len(names) <= connectives.num_classes()
        for label, name in enumerate(names[1:], 1):
            comma = ", 他" if language == "zh" else ", he"
            assert connectives.opening_connective(name + comma, language)[0] == label
    assert len(connectives.class_names("en")) == 174 and len(connectives.class_names("zh")) > 60
    with pytest.raises(ConfigError, match=r"data\.language"):
        connectives.class_names("fr")


@pytest.mark.parametrize(
    ("marker", "language", "name"),
    [
        ("as_a_result,", "en", "as a result"),
        ("However", "en", "however"),
        ("On the  other hand", "en", "on the other hand"),
        ("[no-conn]", "en", NONE),
        ("因此，", "zh", "因此"),
        ("因此 ,", "zh", "因此"),
        ("frankly speaking", "en", None),
        ("", "zh", None),
    ],
)
def test_class_of_a_marker_as_people_write_it(marker: str, language: str, name: str | None) -> None:
    label = connectives.class_of(marker, language)
    assert (None if label is None else connectives.class_names(language)[label]) == name
