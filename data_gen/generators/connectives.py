"""Connectives that open a sentence: the classes of the discourse relation, for Chinese and English.

Class 0 is `[no-conn]`, class i is entry i - 1 of the language's list; so entries are only ever added at the
end. An entry that ends in a comma counts only if a comma (Chinese also a colon or an enumeration comma)
follows it in the text; the others may also open the sentence directly ("因此他", "but he"), unless what
follows shows that it is none here (`_ZH_UNLESS`).

English: the 173 markers of Discovery (Sileo et al. 2019, arXiv 1903.11850), whose data the paper used, in its
order. Only "however" needs its comma here and not there: "However hard he tried" has no connective. Chinese:
Baidu's list was never published; this one was compiled for this project. Which entries need a comma and what
may not follow the others was decided by reading what they open in 10 MB of novels, essays, encyclopedia,
manuals, papers and reviews."""

import functools
import re

import numpy as np

from ernie2.strict import ConfigError

NO_CONNECTIVE = "[no-conn]"

_ZH = """
但是 但 然而 不过 可是 只是, 反之 相反 反而 尽管如此 即便如此, 虽然如此 话虽如此 与此相反 相比之下 相对而言
另一方面 而 否则 不然 要不然 殊不知 谁知 岂料 不料 没想到 奇怪的是 遗憾的是 可惜的是 可惜 不幸的是 幸运的是
幸好 幸而 好在 所幸 因此 因而 所以 于是 故而 故 从而 由此 由此可见 可见 这样 这样一来 如此一来 结果, 正因如此
正因为如此 正因为这样 有鉴于此 鉴于此 为此 以致 以至于 难怪 怪不得 原来 毕竟 既然如此 那么 而且 并且 此外 另外
同时 与此同时 再者 再说, 况且 何况 更何况 甚至 不仅如此 除此之外 除此以外 更重要的是 加之 同样, 同样地 同理
还有, 尤其是 特别是 其中, 值得注意的是 需要注意的是 值得一提的是 首先 其次 再次, 最后 第一, 第二, 第三, 第四,
一方面 接着 接下来 随后 然后 后来 之后 此后 其后 从此 最终 终于 这时 此时 那时 起初 最初 不久 忽然 突然 有时
至此 例如 比如 譬如 比如说 举例来说 具体来说 具体而言 也就是说 换句话说 换言之 即, 总之 总的来说 总而言之
总体而言 综上所述 简而言之 简单来说 一般来说 一般而言 通常 事实上 实际上 其实 的确 确实 当然 显然 毫无疑问
无疑 据说 据悉 也许 或许 看来 严格来说 老实说 说实话 至于 对此 无论如何 不管怎样 或者 要么 归根结底 相应地
反过来
"""
_EN = """
absolutely, accordingly actually, additionally admittedly, afterward again, already, also, alternately,
alternatively although, altogether, amazingly, and anyway, apparently, arguably, as_a_result, basically,
because_of_that because_of_this besides, but by_comparison, by_contrast, by_doing_this, by_then certainly,
clearly, coincidentally, collectively, consequently conversely curiously, currently, elsewhere, especially,
essentially, eventually, evidently, finally, first, firstly, for_example for_instance fortunately, frankly,
frequently, further, furthermore generally, gradually, happily, hence, here, historically, honestly,
hopefully, however, ideally, immediately, importantly, in_contrast, in_fact, in_other_words in_particular,
in_short, in_sum, in_the_end, in_the_meantime, in_turn, incidentally, increasingly, indeed, inevitably,
initially, instead, interestingly, ironically, lastly, lately, later, likewise, locally, luckily, maybe,
meaning, meantime, meanwhile, moreover mostly, namely, nationally, naturally, nevertheless next, nonetheless
normally, notably, now, obviously, occasionally, oddly, often, on_the_contrary, on_the_other_hand once, only,
optionally, or, originally, otherwise, overall, particularly, perhaps, personally, plus, preferably,
presently, presumably, previously, probably, rather, realistically, really, recently, regardless, remarkably,
sadly, second, secondly, separately, seriously, significantly, similarly, simultaneously slowly, so,
sometimes, soon, specifically, still, strangely, subsequently, suddenly, supposedly, surely, surprisingly,
technically, thankfully, then, theoretically, thereafter, thereby, therefore third, thirdly, this, though,
thus, together, traditionally, truly, truthfully, typically, ultimately, undoubtedly, unfortunately,
unsurprisingly, usually, well, yet,
"""
_ENTRIES = {"zh": _ZH.split(), "en": [entry.replace("_", " ") for entry in _EN.split()]}
_AFTER = {"zh": r"\s*([，,：:、]\s*)?", "en": r"(?!\w)\s*(,\s*)?"}
"""What may follow a connective: spaces and a comma."""
_NUMBER = "[一二两三四五六七八九十百千几0-9０-９]"
_ZH_UNLESS = {
    "*": "[的地得之]",  # 这样的人, 同时的事
    "最后 最终 最初 此后 另外 突然 忽然": _NUMBER,  # 最后一次, 最初三个月, 另外两位
    "最后 最终 最初 起初 首先 其次 然后 随后 之后 此后 其后 接着 接下来": "是",  # 其次是花厅
    "最后 最终 最初 随后 之后 此后 其后 后来": "[^，。、；：！？]{2,3}的",  # 最后选中的头像, 随后发生的事情
    "突然 忽然 不久 从此 最初 起初": "[间后以之前时]",  # 突然间, 不久后, 从此后
    "这样": f"{_NUMBER}|[做说看想讲下子大多好来]",  # 这样做有几个好处, 这样说来
    "那么": f"{_NUMBER}|[大多长高小久远深重]",  # 那么大只狗
    "不过": "[两几数十百多]",  # 不过两年
    "但": "见",
    "通常": "情况",
    "对此 为此": "[问事]",
    "相反": "方向",
}
"""Connectives -> pattern of what shows, right after them and without a comma, that they are none there."""


@functools.cache
def class_names(language: str) -> list[str]:
    """Name of every class of `language` ("zh" or "en"), `[no-conn]` first. Raises ConfigError for another."""
    if language not in _ENTRIES:
        known = ", ".join(_ENTRIES)
        raise ConfigError(f"data.language: found {language!r}, connectives are listed for {known}")
    return [NO_CONNECTIVE] + [entry.rstrip(",") for entry in _ENTRIES[language]]


@functools.cache
def _labels(language: str) -> dict[str, int]:
    return {name: label for label, name in enumerate(class_names(language))}


@functools.cache
def _opening(language: str) -> re.Pattern:
    """Matches the longest name and what may follow; groups: name, comma."""
    names = sorted(class_names(language)[1:], key=len, reverse=True)
    return re.compile(f"({'|'.join(names)}){_AFTER[language]}", re.IGNORECASE)


@functools.cache
def _unless(language: str) -> list[re.Pattern | None]:
    """By class: what may not follow it directly; None: only a comma may follow."""
    made: list[re.Pattern | None] = [None]
    for entry in _ENTRIES[language]:
        rules = _ZH_UNLESS.items() if language == "zh" else ()
        patterns = [f"(?:{pattern})" for names, pattern in rules if names == "*" or entry in names.split()]
        made.append(None if entry.endswith(",") else re.compile("|".join(patterns) or "(?!)"))
    return made


def num_classes() -> int:
    """Classes that one head needs to serve every language: the longest list and `[no-conn]`."""
    return max(len(class_names(language)) for language in _ENTRIES)


def class_of(marker: str, language: str) -> int | None:
    """Class of a connective as people and Discovery write it: any case, `_` for a space, a comma after it or
    not; None if the language's list does not have it."""
    name = " ".join(marker.replace("_", " ").split()).rstrip(",，").rstrip().lower()
    return _labels(language).get(name)


@functools.cache
def _opening_codes(language: str) -> tuple[np.ndarray, np.ndarray]:
    """uint64: the first two characters of connectives, in any case, as one number each; and those of one
    character."""
    keys = {name[:2] for name in class_names(language)[1:]}
    keys = {form for key in keys for form in (key, key.capitalize(), key.upper())}
    return (
        np.array([ord(key[0]) << 32 | ord(key[1]) for key in keys if len(key) == 2], np.uint64),
        np.array([ord(key) for key in keys if len(key) == 1], np.uint64),
    )


def may_open(codes: np.ndarray, at: np.ndarray, language: str) -> np.ndarray:
    """bool (n): whether a connective may begin at places `at`, int (n), of a text; most sentences open with
    none.

    `codes`: uint32, code points of the text. False only if `opening_connective` would find none."""
    two, one = _opening_codes(language)
    first = codes.take(at).astype(np.uint64)
    return np.isin(first << np.uint64(32) | codes.take(at + 1, mode="clip"), two) | np.isin(first, one)


def opening_connective(text: str, language: str) -> tuple[int, int] | None:
    """The longest connective that opens `text`: its class, and the character where the rest begins, comma and
    spaces passed; None if there is none.

    Class 0: it looks like a connective and is none (no comma where one is needed, 这样的人); such a sentence
    is no example of a sentence without a connective either."""
    found = _opening(language).match(text)
    if found is None:
        return None
    label, end = _labels(language)[found[1].casefold()], found.end()
    unless = _unless(language)[label]
    is_none = found[2] is None and (unless is None or unless.match(text, end))
    return (0 if is_none else label), end
