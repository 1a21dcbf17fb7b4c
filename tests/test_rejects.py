"""data_gen.reading.rejects: what is left out is counted, with examples that can be written anywhere."""

from __future__ import annotations

import json

from data_gen.reading.rejects import RejectCounter, split_source


def test_counts_and_examples_of_many_counters_come_together() -> None:
    one, two = RejectCounter(keep=2), RejectCounter()
    one.add("a:1", "bad", "x" * 100)
    for n in range(5):
        two.add(f"b:{n}", "bad")
    two.note("c", "seen", count=7)
    one.merge(two)
    one.merge(two)
    assert one.counts == {"bad": 11} and one.notes == {"seen": 14} and one.total == 11
    assert one.examples == {"bad": [["a:1", "x" * 80], ["b:0", ""]], "seen": [["c", ""], ["c", ""]]}


def test_a_counter_survives_json() -> None:
    counter = RejectCounter(keep=3)
    counter.add("a:1", "bad", "half \ud800 of a pair")
    counter.note("\udcffname.txt:2", "seen", count=2)
    again = RejectCounter.from_json(
        json.loads(json.dumps(counter.to_json(), ensure_ascii=False).encode("utf-8"))
    )
    assert again == counter and again.examples["bad"] == [["a:1", "half \\ud800 of a pair"]]
    again.add("b:1", "bad")
    assert again.counts["bad"] == 2 and counter.counts["bad"] == 1, "nothing is shared"


def test_rows_are_those_of_rejects_and_name_file_and_line() -> None:
    counter = RejectCounter()
    counter.add("dir/a:b.txt:12", "bad", "text")
    counter.add("dir/a.gz", "damaged_file", "truncated")
    counter.note("dir/a.txt:1", "crlf")
    assert list(counter.rows()) == [
        {"file": "dir/a:b.txt", "line": 12, "reason": "bad", "text": "text"},
        {"file": "dir/a.gz", "line": None, "reason": "damaged_file", "text": "truncated"},
    ]
    assert split_source("C:name") == ("C:name", None) and split_source("a:²") == ("a:²", None)
