"""data_gen.reading.pieces, cutting, formats, streams: files of any kind, size and condition to pieces."""

from __future__ import annotations

import bz2
import gzip
import itertools
import json
import os
import random
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from data_gen.reading import cutting, formats, streams
from data_gen.reading.documents import RejectCounter, TextOptions, parse
from data_gen.reading.pieces import Piece, read_pieces
from data_gen.reading.streams import DamagedFile, Stream, expand_paths, read_lines
from ernie2.config import ConfigError

OPTIONS = TextOptions()


def zstd(data: bytes) -> bytes:
    return pytest.importorskip("zstandard").ZstdCompressor().compress(data)


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": zstd,
}


def pieces_of(
    *paths: Path,
    source: str = "documents",
    piece_bytes: int = 1000,
    rejects: RejectCounter | None = None,
    options: TextOptions = OPTIONS,
) -> list[Piece]:
    return list(
        read_pieces(paths, source, options, RejectCounter() if rejects is None else rejects, piece_bytes)
    )


def write(path: Path, data: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def numbered(count: int, end: str = "\n\n") -> str:
    """Documents of one to four lines that say on which line of the file they are."""
    lines, line, rng = [], 1, random.Random(count)
    for _ in range(count):
        height = rng.randrange(1, 5)
        lines += [f"line {line + n} " + "文" * rng.randrange(30) for n in range(height)]
        lines[-1] += end
        line += height + end.count("\n") - 1
    return "\n".join(lines).replace(end + "\n", end)


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("end", ["\n\n", "\n\r\n", "\n \t\n\n"])
def test_pieces_are_whole_documents_with_line_and_offset(tmp_path: Path, suffix: str, end: str) -> None:
    data = numbered(300, end).encode()
    path = write(tmp_path / f"a.txt{suffix}", COMPRESS[suffix](data))
    for piece_bytes in (1, 100, 1000, 1_000_000):
        pieces = pieces_of(path, piece_bytes=piece_bytes)
        assert b"".join(piece.data for piece in pieces).split() == data.split()
        assert all(data[piece.offset :].startswith(piece.data) and piece.kind == "txt" for piece in pieces)
        documents = [document for piece in pieces for document in parse(piece, OPTIONS, RejectCounter())]
        assert len(documents) == 300
        assert all(
            document.text.startswith(f"line {document.source.rsplit(':', 1)[1]}") for document in documents
        )
        if piece_bytes == 1000:
            assert len(pieces) > 20 and max(len(piece.data) for piece in pieces) <= 1000


def test_files_advance_in_proportion_to_their_size(tmp_path: Path) -> None:
    sizes = {"a.txt": 20_000, "b.jsonl": 60_000, "c.txt.gz": 40_000, "d.txt": 300}
    for name, size in sizes.items():
        line = b'{"text": "abc %d"}\n' if "json" in name else b"words of a text %d\n\n"
        data = b"".join(line % n for n in range(size // 20))
        write(tmp_path / name, gzip.compress(data) if name.endswith("gz") else data)
    pieces = pieces_of(*(tmp_path / name for name in sizes))
    assert pieces == pieces_of(*(tmp_path / name for name in sizes)), "the order depends on the files alone"
    total = {name: sum(len(p.data) for p in pieces if p.path.endswith(name)) for name in sizes}
    seen = dict.fromkeys(sizes, 0)
    for number, piece in enumerate(pieces):
        seen[Path(piece.path).name] += len(piece.data)
        shares = [seen[name] / total[name] for name in ("a.txt", "b.jsonl", "c.txt.gz")]
        assert max(shares) - min(shares) < 0.12, (number, shares)
    assert 0.3 < next(n for n, p in enumerate(pieces) if p.path.endswith("d.txt")) / len(pieces) < 0.7


def test_many_files_take_turns_and_few_are_open(tmp_path: Path) -> None:
    for n in range(150):
        write(tmp_path / f"{n:03d}.txt", "".join(f"text {n} {m}\n\n" for m in range(50 if n else 3000)))
    opened = 0
    for piece in read_pieces([tmp_path], "documents", OPTIONS, RejectCounter(), 200):
        assert piece.data
        opened = (
            max(
                opened,
                sum(
                    str(tmp_path) in os.readlink(f"/proc/self/fd/{fd}")
                    for fd in os.listdir("/proc/self/fd")
                    if os.path.islink(f"/proc/self/fd/{fd}")
                ),
            )
            if sys.platform == "linux"
            else 1
        )
    assert 1 <= opened <= 32
    orders = []
    for seed in (1, 1, 2):
        pieces = pieces_of(tmp_path, options=TextOptions(seed=seed))
        orders.append([piece.path for piece in pieces])
        assert sorted(b"".join(p.data for p in pieces).split(b"\n")) == sorted(
            b"".join(p.read_bytes() for p in tmp_path.iterdir()).split(b"\n")
        )
    assert orders[0] == orders[1] != orders[2]
    big = [n for n, path in enumerate(orders[0]) if path.endswith("000.txt")]
    assert big[0] < 40 and len(orders[0]) - big[-1] < 40, "a large file is spread over the whole run"


WIKI = (
    '<doc id="1" url="u?curid=1" title="甲 -> 乙">\n甲 -> 乙\n\n一。\n\n二。\n\n</doc>\n'
    '<doc id="2" url="u" title="丙">\n丙\n\n三&lt;br&gt;四。\n</doc>\n'
)


def test_kinds_are_told_by_content(tmp_path: Path) -> None:
    record = json.dumps({"id": "1", "url": "u", "title": "题", "text": "文。"}, ensure_ascii=False)
    cases = {
        "AA/wiki_00": ("wiki", WIKI),
        "AA/wiki_01.bz2": ("wiki", WIKI),
        "wiki_02": ("jsonl", record),
        "a.txt": ("wiki", WIKI),
        "b.txt": ("jsonl", record),
        "c.txt": ("txt", "文。"),
        "plain": ("txt", "文。"),
        "d.jsonl": ("jsonl", record),
        "e.json": ("jsonl", record),
        "f.json": ("jsonl", f"[{record}]"),
        "g.txt": ("txt", "[1] 文献\n{x} 集"),
    }
    for name, (_, text) in cases.items():
        write(tmp_path / name, COMPRESS[".bz2" if name.endswith(".bz2") else ""](text.encode()))
    for name, (kind, _) in cases.items():
        assert {piece.kind for piece in pieces_of(tmp_path / name)} == {kind}, name
    assert len(pieces_of(tmp_path, piece_bytes=10**6)) == len(cases) - 1, (
        "a folder stands for files whose names say what they are"
    )
    assert [p.data.count(b"<doc") for p in pieces_of(tmp_path / "AA" / "wiki_00", piece_bytes=100)] == [1, 1]


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_json_array_is_cut_into_records(step: int) -> None:
    records = [
        {"title": 'a"},{"b', "content": "x\\\n}"},
        {"tags": [{"a": "]"}, {}], "n": [[1], {}]},
        "text",
        {"content": '\\"},{'},
    ]
    for text in (json.dumps(records), json.dumps(records, indent=1)):
        data = f" \n{text} \n".encode()
        chunks = [data[n : n + step] for n in range(0, len(data), step)]
        lines = b"".join(formats.json_lines(chunks, "utf-8")).splitlines()
        assert [json.loads(line) for line in lines] == records
        with pytest.raises(DamagedFile, match="does not end"):
            list(formats.json_lines([data[:-5]], "utf-8"))
    with pytest.raises(DamagedFile, match="gb18030"):
        list(formats.json_lines([data], "gb18030"))


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".zst"])
def test_what_is_left_of_a_damaged_file_is_used(tmp_path: Path, suffix: str) -> None:
    rng = random.Random(1)
    data = "".join(f"行 {n} {rng.random()}\n\n" for n in range(30_000)).encode()
    packed = bz2.compress(data, 1) if suffix == ".bz2" else COMPRESS[suffix](data)
    half, garbled = len(packed) // 2, bytearray(packed)
    garbled[half : half + 40] = b"\x55" * 40
    for content, message in (
        (packed[:half], "truncated"),
        (bytes(garbled), "damaged"),
        (packed + b"something else", "damaged"),
    ):
        rejects, path = RejectCounter(), write(tmp_path / f"a.txt{suffix}", content)
        found = b"".join(piece.data for piece in pieces_of(path, rejects=rejects))
        good = len(
            os.path.commonprefix([data, found])
        )  # gzip sees damage late: it makes something of it for a while
        assert (
            good > 0.3 * len(data)
            and found.endswith(b"\n")
            and (good == len(found) or suffix == ".gz" and message == "damaged")
        )
        assert rejects.counts == {"damaged_file": 1} and message in rejects.examples["damaged_file"][0][1]
    two = write(tmp_path / f"two.txt{suffix}", packed + b"\0" * 40_000 + packed)
    if suffix != ".zst":
        assert b"".join(piece.data for piece in pieces_of(two)) == data + data
    assert b"".join(piece.data for piece in pieces_of(write(two, packed + packed))) == data + data


def test_a_file_whose_name_lies_is_read_for_what_it_is(tmp_path: Path) -> None:
    for name, data in (("plain.txt.gz", "文字。".encode()), ("packed.txt", gzip.compress("文字。".encode()))):
        assert [piece.data.decode() for piece in pieces_of(write(tmp_path / name, data))] == ["文字。"]
    rejects = RejectCounter()
    write(tmp_path / "junk.txt.gz", bytes(range(256)))
    assert len(pieces_of(tmp_path, rejects=rejects)) == 2
    assert rejects.examples["damaged_file"] == [
        [str(tmp_path / "junk.txt.gz"), "neither a .gz file nor text"]
    ]


def test_bad_files_among_good_ones_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "good.txt", "好。")
    write(tmp_path / "empty.txt", "")
    write(tmp_path / "utf16.txt", "文字。".encode("utf-16"))
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.txt").mkdir()
    os.mkfifo(tmp_path / "pipe.txt")
    locked = write(tmp_path / "locked.txt", "x")
    real = streams.Stream.__init__

    def refuse(self: Stream, path: str) -> None:
        if str(path) == str(locked):
            raise PermissionError(13, "Permission denied")
        real(self, path)

    monkeypatch.setattr(streams.Stream, "__init__", refuse)
    rejects = RejectCounter()
    assert len(pieces_of(Path(f"{tmp_path}/*.txt"), rejects=rejects)) == 1
    assert rejects.counts == {"unreadable_file": 3, "not_utf-8": 1} and rejects.notes == {"empty_file": 1}
    rows = {Path(file).name: text for reason in rejects.counts for file, text in rejects.examples[reason]}
    assert rows == {
        "gone.txt": "No such file or directory",
        "pipe.txt": "no regular file",
        "locked.txt": "Permission denied",
        "utf16.txt": "UTF-16; convert it to UTF-8 (iconv -f utf-16 -t utf-8)",
    }


def test_a_disk_that_fails_on_the_way_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.txt", "好。\n\n" * 100_000)
    calls = itertools.count()
    real = streams.Stream._read

    def fail(self: Stream, count: int) -> bytes:
        if next(calls) == 2:
            raise DamagedFile("cannot be read on: Input/output error")
        return real(self, count)

    monkeypatch.setattr(streams.Stream, "_read", fail)
    rejects = RejectCounter()
    assert 200_000 < sum(len(piece.data) for piece in pieces_of(path, rejects=rejects)) <= 2 * streams.CHUNK
    assert rejects.examples["damaged_file"] == [[str(path), "cannot be read on: Input/output error"]]


def test_mistakes_stop_the_run_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    write(tmp_path / "cut.txt.gz", gzip.compress(b"x" * 100)[:12])
    cases = {
        "no such file": tmp_path / "nowhere.txt",
        "no such file ": tmp_path / "none*.txt",
        "holds no .txt": tmp_path / "folder",
        "unknown kind": write(tmp_path / "a.pdf", "x"),
        "unknown kind ": write(tmp_path / "a.tar.gz", "x"),
        "no document in it": write(tmp_path / "empty.txt", ""),
        "no document in it ": write(tmp_path / "blank.txt", " \n\n\t\r\n"),
        "nothing could be read .*truncated gz file": tmp_path / "cut.txt.gz",
    }
    for message, path in cases.items():
        with pytest.raises(ConfigError, match=message.strip()):
            pieces_of(path)
    with pytest.raises(ConfigError, match="at least one file"):
        pieces_of()
    good = write(tmp_path / "good.txt", "x")
    for encoding, message in (
        ("utf-16", "iconv -f utf-16"),
        ("cp500", "iconv"),
        ("utf-9", "unknown"),
        ("hex", "unknown"),
    ):
        with pytest.raises(ConfigError, match=message):
            pieces_of(good, options=TextOptions(encoding=encoding))


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.txt.zst", zstd(b"text"))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ConfigError, match="pip install zstandard"):
        pieces_of(path)
    monkeypatch.setitem(sys.modules, "opencc", None)
    with pytest.raises(ConfigError, match="pip install opencc"):
        pieces_of(write(tmp_path / "a.txt", "x"), options=TextOptions(simplify=True))


def test_headers_are_checked_in_all_files_first(tmp_path: Path) -> None:
    one = write(tmp_path / "a.tsv", "\ufeffquery\ttitle\tclicked\tcount\r\n词\t题\t1\t3\r\n")
    two = write(tmp_path / "b.tsv.gz", gzip.compress(b"query\ttitle\trelevance\nq\tt\t2\n"))
    pieces = pieces_of(one, two, source="pairs")
    assert [(piece.header.split("\t")[2:], piece.first_line, piece.kind) for piece in pieces] == [
        (["clicked", "count"], 2, "pairs"),
        (["relevance"], 2, "pairs"),
    ]
    assert pieces[0].data == "词\t题\t1\t3\r\n".encode() and pieces[0].offset == one.read_bytes().index(
        "词".encode()
    )
    for text in ("query\ttitle\tclick\n", "词\t题\t1\n", "sentence1\tsentence2\tmarker\n"):
        with pytest.raises(ConfigError, match=r"c.tsv:1: the header is '.*query\\ttitle\\tclicked"):
            next(read_pieces([one, write(tmp_path / "c.tsv", text)], "pairs", OPTIONS, RejectCounter()))
    with pytest.raises(ConfigError, match="that of query log: give the file under data.query_log"):
        next(read_pieces([two], "marked_pairs", OPTIONS, RejectCounter()))
    with pytest.raises(ConfigError, match="no usable row below the header"):
        pieces_of(write(tmp_path / "c.tsv", "query\ttitle\tclicked\n\n"), source="pairs")
    marked = write(tmp_path / "m.tsv", "sentence1\tsentence2\tmarker\na\tb\tbut\n")
    assert pieces_of(marked, source="marked_pairs")[0].kind == "marked_pairs"


def test_old_mac_line_ends(tmp_path: Path) -> None:
    rejects, path = RejectCounter(), write(tmp_path / "a.txt", "一。\r二。\r\r三。\r" * 3000)
    pieces = pieces_of(path, rejects=rejects)
    documents = [(d.source, d.text) for piece in pieces for d in parse(piece, OPTIONS, rejects)]
    assert len(pieces) > 20 and len(documents) == 3001 and rejects.notes == {"cr_line_ends": 1}
    assert documents[-2:] == [
        (f"{path}:{4 * 2998 + 4}", "三。\n一。\n二。"),
        (f"{path}:{4 * 2999 + 4}", "三。"),
    ]


def test_long_documents_and_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "LONG_DOCUMENT", 40_000)
    monkeypatch.setattr(cutting, "LONG_LINE", 500_000)
    monkeypatch.setattr(streams, "CHUNK", 10_000)
    text = (
        "短。\n\n"
        + "长文。\n" * 12_000
        + "\n"
        + "x" * 400_000
        + "\n后\n\n"
        + "y" * 600_000
        + "\n尾\n\n"
        + "z" * 700_000
    )
    rejects, path = RejectCounter(), write(tmp_path / "a.txt", text)
    pieces = pieces_of(path, rejects=rejects)
    assert b"".join(piece.data for piece in pieces).decode().split() == [
        word for word in text.split() if not word.startswith(("y", "z"))
    ]
    assert rejects.notes == {"long_document": 2}
    assert sorted(len(piece.data) for piece in pieces)[-2] <= 40_001
    assert [piece.first_line for piece in pieces if piece.data[:1] == b"x"] == [12_004]
    assert rejects.examples["line_too_long"] == [
        [f"{path}:12007", "more than 0.5 MB without a line end: " + "y" * 43],
        [f"{path}:12010", "more than 0.5 MB without a line end: " + "z" * 43],
    ]
    last = next(piece for piece in pieces if "尾".encode() in piece.data)
    assert last.first_line == 12_008 and text.encode()[last.offset :].startswith(last.data)


def test_memory_is_bounded(tmp_path: Path) -> None:
    """A file of zeros, 120 MB unpacked; a line of 40 MB that never ends."""
    for number, data in enumerate(
        (
            gzip.compress(b"\0" * 120_000_000, 1),
            bz2.compress(b"a" * 120_000_000, 1),
            zstd(b"b" * 120_000_000),
            b"c" * 40_000_000,
        )
    ):
        rejects, path = RejectCounter(), write(tmp_path / f"{number}.txt", data)
        tracemalloc.start()
        with pytest.raises(ConfigError, match="MB without a line end"):
            pieces_of(path, rejects=rejects)
        assert tracemalloc.get_traced_memory()[1] < 60_000_000
        tracemalloc.stop()
        assert rejects.counts == {"line_too_long": 1}


def test_paths_are_sorted_and_each_comes_once(tmp_path: Path) -> None:
    for name in (
        "b.txt",
        "a.txt",
        "sub/c.txt.gz",
        "sub/d.md",
        "sub/deep/wiki_00",
        "sub/.hidden.txt",
        "sub/e.json.zst",
    ):
        write(tmp_path / name, "x")
    found = expand_paths(
        [tmp_path / "*.txt", str(tmp_path / "a.txt"), str(tmp_path / "**" / "*.gz"), tmp_path / "sub"]
    )
    assert [str(path.relative_to(tmp_path)) for path in found] == [
        "a.txt",
        "b.txt",
        "sub/c.txt.gz",
        "sub/deep/wiki_00",
        "sub/e.json.zst",
    ]
    write(tmp_path / "[1].txt", "x")
    assert expand_paths([tmp_path / "[1].txt"]) == [tmp_path / "[1].txt"]


def test_lines_of_a_file_whose_every_line_matters(tmp_path: Path) -> None:
    for suffix, compress in COMPRESS.items():
        path = write(tmp_path / f"words.txt{suffix}", compress("\ufeff一\r\n\n三".encode()))
        assert list(read_lines(path)) == [(1, "一"), (2, ""), (3, "三")]
    cases = {
        r"bad.txt:2: not utf-8 at byte 4 \(ff 62\)": b"\xe4\xb8\x80\n\xffb",
        "cut.txt: truncated gz": gzip.compress(b"x")[:12],
    }
    for message, data in cases.items():
        with pytest.raises(ConfigError, match=message):
            list(read_lines(write(tmp_path / f"{message[:3]}.txt", data)))
    with pytest.raises(ConfigError, match="cannot be read"):
        list(read_lines(tmp_path))


def test_speed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "一二三四五六七八九十，一二三四五六七八九十。\n" * 5 + "\n" * 1)
    path.write_bytes(path.read_bytes() * 60_000)
    started = time.process_time()
    count = sum(len(piece.data) for piece in read_pieces([path], "documents", OPTIONS, RejectCounter()))
    assert count > 20e6 and count / (time.process_time() - started) > 100e6
