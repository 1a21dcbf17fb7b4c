"""Other projects' data generation, run as it is on the same text: PaddleNLP's ernie-1.0 scripts and Baidu's demo script.

Neither is part of a package: name a checkout of each. Neither runs as it is, so it is helped, always in its favour:
- PaddleNLP's words_segmentation.py builds its LAC segmenters at import even where jieba is asked for (an empty module LAC is
  put beside it), cannot read .jsonl (it gets WuDao's format), and names its output by the last 20 characters of the path.
- Baidu's make_pretrain_data.py imports propeller, which does not load on today's Paddle (a small package stands in for it,
  with the same messages), wants words parted by spaces (jieba cuts them, that is part of the time), and takes its word
  pieces from the package ernie (which is found without the import of its models).
What they make is less: one task, no entities, masks drawn later.
"""

from __future__ import annotations

import functools
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.datagen_inputs import documents_of, read_text
from benchmarks.processes import ROOT, RunFailed, run
from ernie2.strict import ConfigError
from ernie2.tokenizer import Vocab

PADDLENLP_SCRIPTS = ("words_segmentation.py", "trans_to_json.py", "create_pretraining_data.py")
ERNIE_SCRIPT = "make_pretrain_data.py"
_PROPELLER = "import logging\n\nlog = logging.getLogger('propeller')\n"
_MESSAGES = "from benchmarks.datagen_peers import example_messages\n\nglobals().update(example_messages())\n"
_LAC = "class LAC:\n    def __init__(self, mode=''):\n        pass\n"


@dataclass(frozen=True)
class Peer:
    """A peer that can be run.

    Attributes:
        key: Short name.
        name: For the table.
        times: How many times as fast as it our data generation has to be.
        seconds: (text file, vocabulary, empty folder) -> wall clock of the whole, processes started one after the other.
    """

    key: str
    name: str
    times: float
    seconds: Callable[[Path, Path, Path], float]


def find_peers(paddlenlp: Path | None, ernie: Path | None) -> list[Peer]:
    """The peers whose checkouts are given. Raises ConfigError where their scripts are not in them."""
    peers = []
    if paddlenlp is not None:
        scripts = _folder_of(PADDLENLP_SCRIPTS, paddlenlp, "--paddlenlp")
        peers.append(Peer("paddlenlp", "PaddleNLP's ernie-1.0 scripts", 15.0,
                          lambda text, vocab, folder: _paddlenlp(scripts, text, vocab, folder)))
    if ernie is not None:
        script = _folder_of((ERNIE_SCRIPT,), ernie, "--ernie") / ERNIE_SCRIPT
        package = _folder_of(("tokenizing_ernie.py",), ernie, "--ernie")
        peers.append(Peer("ernie", "Baidu's demo script", 12.0,
                          lambda text, vocab, folder: _ernie(script, package, text, vocab, folder)))
    return peers


def _folder_of(names: tuple[str, ...], checkout: Path, option: str) -> Path:
    """The folder of a checkout that holds all these files; of several, the one of ernie-1.0's preprocess."""
    folders = [path.parent for path in sorted(checkout.absolute().rglob(names[0]))]
    found = [folder for folder in folders if all((folder / name).is_file() for name in names)]
    if not found:
        raise ConfigError(f"{option} {checkout}: no {', '.join(names)} in it; name a checkout of the project that holds them")
    return max(found, key=lambda path: "ernie-1.0/preprocess" in path.as_posix())


def _paddlenlp(scripts: Path, text: Path, vocab: Path, folder: Path) -> float:
    """Words, JSON lines, ids: with one worker each."""
    (folder / "raw").mkdir()
    (folder / "LAC").mkdir()
    (folder / "LAC/__init__.py").write_text(_LAC, encoding="utf-8")
    (folder / "vocab").mkdir()
    (folder / "vocab/vocab.txt").write_text("\n".join(Vocab.load(vocab).id_to_token) + "\n", encoding="utf-8")
    rows = [{"content": document} for document in documents_of(read_text(text))]
    # Its output takes the last 20 characters of this path for a name.
    (folder / "raw/text-of-the-benchmark.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    commands = (
        ["words_segmentation.py", "--input_path", "raw", "--output_path", "words", "--data_format", "wudao",
         "--cn_seg_func", "jieba"],
        ["trans_to_json.py", "--input_path", "words", "--output_path", "words.jsonl"],
        ["create_pretraining_data.py", "--model_name", "vocab", "--tokenizer_name", "ErnieTokenizer", "--input_path",
         "words.jsonl", "--data_format", "JSON", "--split_sentences", "--chinese", "--cn_splited", "--cn_whole_word_segment",
         "--output_prefix", "made", "--log_interval", "10000"],
    )
    environment = {"PYTHONPATH": str(folder), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    seconds = sum(run([sys.executable, scripts / name, *rest, "--workers", "1"], folder, environment).seconds
                  for name, *rest in commands)
    _check_made(folder / "made.bin", rows)
    return seconds


def _ernie(script: Path, package: Path, text: Path, vocab: Path, folder: Path) -> float:
    """Words by jieba, then the script; it has no workers."""
    for name, content in (("propeller/__init__.py", _PROPELLER), ("propeller/data/__init__.py", ""),
                          ("propeller/data/example_pb2.py", _MESSAGES), ("propeller/data/feature_pb2.py", _MESSAGES),
                          ("ernie/__init__.py", f"__path__ = [{str(package)!r}]\n")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    words, out = folder / "words.txt", folder / "made.gz"
    arguments = json.dumps({"text": str(text.absolute()), "out": str(words)})
    seconds = run([sys.executable, "-m", "benchmarks.datagen_parts", "spaced_words", arguments, str(folder / "done.json")]).seconds
    seconds += run([sys.executable, script, words, out, "--vocab", vocab.absolute()], folder,
                   {"PYTHONPATH": f"{folder}:{ROOT}"}).seconds
    _check_made(out, documents_of(read_text(text)))
    return seconds


def _check_made(path: Path, documents: list) -> None:
    """Raises RunFailed where a peer made next to nothing."""
    size = path.stat().st_size if path.is_file() else 0
    if size < 20 * len(documents):
        raise RunFailed(f"{path.name} of {size} bytes was made of {len(documents)} documents")


def peer_seconds(peer: Peer, text: Path, vocab: Path, scratch: Path) -> float:
    """One run of a peer in a folder of its own, which is removed. Raises RunFailed."""
    folder = scratch / f"peer_{peer.key}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        return peer.seconds(text, vocab, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@functools.cache
def example_messages() -> dict[str, Any]:
    """Classes of the protocol-buffer messages that Baidu's script writes: lists of features, as TensorFlow's examples."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kind = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="datagen_benchmark.proto", package="propeller", syntax="proto3")
    shapes = {"BytesList": [("value", 1, kind.TYPE_BYTES, None, True)], "FloatList": [("value", 1, kind.TYPE_FLOAT, None, True)],
              "Int64List": [("value", 1, kind.TYPE_INT64, None, True)],
              "Feature": [("bytes_list", 1, kind.TYPE_MESSAGE, "BytesList", False),
                          ("float_list", 2, kind.TYPE_MESSAGE, "FloatList", False),
                          ("int64_list", 3, kind.TYPE_MESSAGE, "Int64List", False)],
              "FeatureList": [("feature", 1, kind.TYPE_MESSAGE, "Feature", True)],
              "FeatureLists": [("feature_list", 1, kind.TYPE_MESSAGE, "FeatureLists.FeatureListEntry", True)],
              "SequenceExample": [("feature_lists", 2, kind.TYPE_MESSAGE, "FeatureLists", False)]}
    for name, fields in shapes.items():
        _add_fields(file.message_type.add(name=name), fields)
    entry = file.message_type[list(shapes).index("FeatureLists")].nested_type.add(name="FeatureListEntry")
    entry.options.map_entry = True
    _add_fields(entry, [("key", 1, kind.TYPE_STRING, None, False), ("value", 2, kind.TYPE_MESSAGE, "FeatureList", False)])
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"propeller.{name}")) for name in shapes}


def _add_fields(message: Any, fields: list[tuple[str, int, int, str | None, bool]]) -> None:
    for name, number, kind, type_name, repeated in fields:
        message.field.add(name=name, number=number, type=kind, label=3 if repeated else 1,
                          type_name=f".propeller.{type_name}" if type_name else None)
