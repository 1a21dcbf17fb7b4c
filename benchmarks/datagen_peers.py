"""Other projects' data generation, run as it is on the same text: PaddleNLP's ernie-1.0 scripts and Baidu's
demo script.

Neither is part of a package: name a checkout of each. Neither runs as it is, so it is helped, always in its
favour:
- PaddleNLP's words_segmentation.py builds its LAC segmenters at import even where jieba is asked for (an
  empty module LAC is
  put beside it), cannot read .jsonl (it gets WuDao's format), and names its output by the last 20 characters
  of the path.
- Baidu's make_pretrain_data.py imports propeller, which does not load on today's Paddle (a small package
  stands in for it,
  with the same messages), wants words separated by spaces (jieba cuts them, that is part of the time), and
  takes its word pieces from the package ernie (which is found without the import of its models).
What they make is less: one task, no entities, masks drawn later."""

from __future__ import annotations

import functools
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.datagen_text import documents_of, read_text
from benchmarks.harness import ROOT, RunFailed, call_command, run
from ernie2.strict import ConfigError
from ernie2.tokenizer import Vocab

PADDLENLP_SCRIPTS = ("words_segmentation.py", "trans_to_json.py", "create_pretraining_data.py")
ERNIE_SCRIPT, ERNIE_TOKENIZER = "make_pretrain_data.py", "tokenizing_ernie.py"
PADDLENLP_OPTIONS = (
    "--input_path raw --output_path words --data_format wudao --cn_seg_func jieba",
    "--input_path words --output_path words.jsonl",
    "--model_name vocab --tokenizer_name ErnieTokenizer --input_path words.jsonl --data_format JSON"
    " --split_sentences --chinese --cn_splited --cn_whole_word_segment --output_prefix made"
    " --log_interval 10000",
)
_MESSAGES = "from benchmarks.datagen_peers import example_messages\n\nglobals().update(example_messages())\n"
_MODULES = [
    f"propeller/{folder}/{name}_pb2.py"
    for folder in ("data", "paddle/data")
    for name in ("example", "feature")
]
_PROPELLER = {
    "propeller/__init__.py": "import logging\n\nlog = logging.getLogger('propeller')\n",
    **dict.fromkeys(_MODULES, _MESSAGES),  # releases differ in the folder
}
# TensorFlow's tf.train.SequenceExample: message -> (field, its type, repeated, number if not 1)
_FIELDS = {
    "BytesList": ("value", "TYPE_BYTES", True),
    "FloatList": ("value", "TYPE_FLOAT", True),
    "Int64List": ("value", "TYPE_INT64", True),
    "FeatureList": ("feature", "Feature", True),
    "SequenceExample": ("feature_lists", "FeatureLists", False, 2),
}


@dataclass(frozen=True)
class Peer:
    """A peer that our data generation has to be `times` as fast as."""

    key: str
    name: str
    times: float
    files: tuple[tuple[str, ...], ...]  # that a checkout has to hold, each group in one folder
    run: Callable[[Path, Path, Path, Path], tuple[float, Path]]
    """(checkout, text, vocabulary, empty folder) -> seconds of its processes, what it made. Raises
    RunFailed."""

    def check(self, checkout: Path) -> None:
        """Raises ConfigError, with the option's name, where a checkout does not hold its files."""
        try:
            for names in self.files:
                folder_of(checkout, *names)
        except ConfigError as error:
            raise ConfigError(f"--{self.key} {error}") from None

    def seconds(self, checkout: Path, text: Path, vocab: Path, scratch: Path) -> float:
        """One run in a folder of its own, which is removed. Raises RunFailed where it makes next to
        nothing."""
        folder = scratch / f"peer_{self.key}"
        folder.mkdir(parents=True)
        try:
            seconds, made = self.run(checkout, text, vocab, folder)
            size, count = made.stat().st_size if made.is_file() else 0, len(documents_of(read_text(text)))
        finally:
            shutil.rmtree(folder)
        if size < 20 * count:
            raise RunFailed(f"{made.name} of {size} bytes was made of {count} documents")
        return seconds


def folder_of(checkout: Path, *names: str) -> Path:
    """The folder of a checkout that holds all these files; of several, ernie-1.0's preprocess. Raises
    ConfigError."""
    folders = [path.parent for path in sorted(checkout.absolute().rglob(names[0]))]
    found = [folder for folder in folders if all((folder / name).is_file() for name in names)]
    if not found:
        raise ConfigError(
            f"{checkout}: no {', '.join(names)} in it; name a checkout of the project with them"
        )
    return max(found, key=lambda path: "ernie-1.0/preprocess" in path.as_posix())


def _paddlenlp(checkout: Path, text: Path, vocab: Path, folder: Path) -> tuple[float, Path]:
    """Words, JSON lines, ids: with one worker each."""
    scripts = folder_of(checkout, *PADDLENLP_SCRIPTS)
    rows = [{"content": document} for document in documents_of(read_text(text))]
    _write(
        folder,
        {
            "LAC/__init__.py": "class LAC:\n    def __init__(self, mode=''):\n        pass\n",
            "vocab/vocab.txt": "\n".join(Vocab.load(vocab).id_to_token) + "\n",
            # Its output takes the last 20 characters of this path for a name.
            "raw/text-of-the-benchmark.json": json.dumps(rows, ensure_ascii=False),
        },
    )
    environment = {"PYTHONPATH": str(folder), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    seconds = 0.0
    for name, options in zip(PADDLENLP_SCRIPTS, PADDLENLP_OPTIONS, strict=True):
        command = [sys.executable, scripts / name, *options.split(), "--workers", "1"]
        seconds += run(command, folder, environment).seconds
    return seconds, folder / "made.bin"


def _ernie(checkout: Path, text: Path, vocab: Path, folder: Path) -> tuple[float, Path]:
    """Words by jieba, then the script; it has no workers."""
    script = folder_of(checkout, ERNIE_SCRIPT) / ERNIE_SCRIPT
    package = folder_of(checkout, ERNIE_TOKENIZER)
    _write(folder, {**_PROPELLER, "ernie/__init__.py": f"__path__ = [{str(package)!r}]\n"})
    words, made = folder / "words.txt", folder / "made.gz"
    arguments = {"text": text.absolute(), "out": words}
    spaced = call_command("benchmarks.datagen_parts", "spaced_words", folder / "done.json", **arguments)
    command = [sys.executable, script, words, made, "--vocab", vocab.absolute()]
    seconds = run(spaced).seconds + run(command, folder, {"PYTHONPATH": f"{folder}:{ROOT}"}).seconds
    return seconds, made


def _write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")


PEERS = (
    Peer("paddlenlp", "PaddleNLP's ernie-1.0 scripts", 15.0, (PADDLENLP_SCRIPTS,), _paddlenlp),
    Peer("ernie", "Baidu's demo script", 12.0, ((ERNIE_SCRIPT,), (ERNIE_TOKENIZER,)), _ernie),
)


@functools.cache  # both modules must have the same classes
def example_messages() -> dict[str, Any]:
    """Classes of the protocol-buffer messages that Baidu's script writes."""
    from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

    def field(name: str, kind: str, repeated: bool, number: int = 1) -> dict[str, Any]:
        plain = kind.startswith("TYPE_")
        shape = {"type": kind} if plain else {"type": "TYPE_MESSAGE", "typeName": f".propeller.{kind}"}
        return {
            "name": name,
            "number": number,
            "label": f"LABEL_{'REPEATED' if repeated else 'OPTIONAL'}",
            **shape,
        }

    messages = [{"name": name, "field": [field(*shape)]} for name, shape in _FIELDS.items()]
    kinds = enumerate(("BytesList", "FloatList", "Int64List"), 1)
    lists = [field(kind.lower().replace("list", "_list"), kind, False, number) for number, kind in kinds]
    pairs = [field("key", "TYPE_STRING", False), field("value", "FeatureList", False, 2)]
    entry = {"name": "FeatureListEntry", "field": pairs, "options": {"mapEntry": True}}
    mapping = field("feature_list", "FeatureLists.FeatureListEntry", True)
    messages += [
        {"name": "Feature", "field": lists},
        {"name": "FeatureLists", "field": [mapping], "nestedType": [entry]},
    ]
    file = {"name": "propeller.proto", "package": "propeller", "syntax": "proto3", "messageType": messages}
    pool = descriptor_pool.DescriptorPool()
    pool.Add(json_format.ParseDict(file, descriptor_pb2.FileDescriptorProto()))
    names = [message["name"] for message in messages]
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"propeller.{name}"))
        for name in names
    }
