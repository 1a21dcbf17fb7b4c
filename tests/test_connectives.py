"""data_gen.connectives: the two lists, and what opens a sentence."""

from __future__ import annotations

import pytest

from data_gen import connectives
from ernie2.config import ConfigError


@pytest.mark.parametrize(("language", "text", "expected"), [
    ("en", "However, he left.", ("however", 9, True)),
    ("en", "However he left.", (connectives.NO_CONNECTIVE, 8, False)),
    ("en", "But he left.", ("but", 4, False)),
    ("en", "Button up.", None),
    ("en", "In other words, no.", ("in other words", 16, True)),
    ("en", "He left.", None),
    ("zh", "因此，他走了。", ("因此", 3, True)),
    ("zh", "因此他走了。", ("因此", 2, False)),
    ("zh", "而且他走了。", ("而且", 2, False)),
    ("zh", "例如：水。", ("例如", 3, True)),
    ("zh", "第一次去。", (connectives.NO_CONNECTIVE, 2, False)),
    ("zh", "这样一来，好了。", ("这样一来", 5, True)),
    ("zh", "最后一次去。", (connectives.NO_CONNECTIVE, 2, False)),
    ("zh", "他走了。", None)])
def test_longest_connective_wins(language: str, text: str, expected: tuple | None) -> None:
    found = connectives.opening_connective(text, language)
    if found is not None:
        found = (connectives.class_names(language)[found[0]], *found[1:])
    assert found == expected


def test_connective_lists() -> None:
    for language in ("zh", "en"):
        names = connectives.class_names(language)
        assert names[0] == connectives.NO_CONNECTIVE and len(set(names)) == len(names) <= connectives.num_classes()
        for label, name in enumerate(names[1:], 1):
            comma = ", 他" if language == "zh" else ", he"
            assert connectives.opening_connective(name + comma, language)[0] == label
    assert len(connectives.class_names("en")) == 174 and len(connectives.class_names("zh")) > 60
    with pytest.raises(ConfigError, match=r"data\.language"):
        connectives.class_names("fr")
