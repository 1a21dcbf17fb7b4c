"""What the codes mean under which the readers count what they left out or changed, in plain words."""

from __future__ import annotations

CODES = {
    # what cleaning changed
    "bom": "byte order mark at the beginning of a file, taken out",
    "broken_character": "characters that stand for lost ones, taken out",
    "control_character": "control characters, taken out",
    "cr_line_ends": "files whose lines end in CR alone, read as lines",
    "crlf": "line ends of CR and LF, made LF",
    "full_width": "runs of full-width letters and digits, made half-width (data.normalise_width)",
    "html": "tags, comments and entities of HTML, taken out or replaced",
    "invisible_character": "zero-width and other invisible characters, taken out",
    "line_break": "odd line breaks inside a line, made a space",
    "odd_space": "tabs, ideographic and other odd spaces, made plain ones",
    "traditional": "lines with traditional characters, made simplified (data.simplify)",
    "white_space": "surplus spaces, taken out",
    # what was set aside or cut
    "empty_file": "files with nothing in them",
    "long_document": "documents of more than 4 MB, cut into several",
    "chinese_page": "Chinese pages of an English corpus",
    "long_sentence": "sentences too long for one example, cut",
    "near_duplicate": "documents that nearly equal an earlier one, left out (data.drop_near_duplicates)",
    "relevance_0": "query log: rows judged irrelevant, set aside, as the class of random titles is drawn",
    "unknown_marker": "marked pairs: the connective is not in the list of the language",
    "odd_title": "JSON objects whose title or desc is no string: read without it",
    # what was left out
    "bad_json": "lines that are no JSON object",
    "bad_label": "query log: clicked or relevance is none of the values it may have",
    "binary": "zero bytes: not text",
    "doubled_key": "JSON objects in which a key stands twice",
    "damaged_file": "compressed files that end early or do not unpack",
    "empty_document": "documents with no text left after cleaning",
    "empty_marker": "marked pairs without a connective",
    "empty_query": "query log: rows without a query",
    "empty_sentence": "marked pairs of which a sentence is empty",
    "empty_title": "query log: rows without a title",
    "line_too_long": "lines of more than 16 MB",
    "no_text": "JSON objects without a field that holds text",
    "no_tokens": "items of which no token is left",
    "too_long": "documents of more than data.max_chars characters",
    "too_short": "documents of fewer than data.min_chars characters",
    "unreadable_file": "files that cannot be opened or read",
    "wrong_columns": "rows with more or fewer columns than the header",
}
"""Code -> what was found, and what became of it. docs/data.md has the settings."""


def in_words(code: str) -> str:
    """What a code means; empty for one that says it itself, or is not known."""
    if code.startswith("not_"):
        return f"bytes that are not {code.removeprefix('not_')}: see data.encoding"
    return CODES.get(code, "")
