"""Other projects' data generation on the same text: PaddleNLP's ernie-1.0 scripts and Baidu's demo script.

Neither is part of a package: name a checkout of each. Neither runs as it is, so it is helped, always in its
favour:
- PaddleNLP's words_segmentation.py builds its LAC segmenters at import even where jieba is asked for (an
  empty module LAC is put beside it) and cannot read .jsonl (it gets WuDao's format).
- Baidu's make_pretrain_data.py imports propeller, which does not load on today's Paddle (plain arrays stand
  in for its protocol buffers), wants words separated by spaces (jieba cuts them, that is part of the time),
  and takes its word pieces from the package ernie (which is found without the import of its models).
What they make is less: one task, no entities, masks drawn later."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from benchmarks.datagen_text import Text, read_documents
from benchmarks.harness import RunFailed, call_command, run
from ernie2.strict import ConfigError
from ernie2.tokenizer import Vocab

PADDLENLP_SCRIPTS = {  # name -> options
    "words_segmentation.py": "--input_path raw --output_path words --data_format wudao --cn_seg_func jieba",
    "trans_to_json.py": "--input_path words --output_path words.jsonl",
    "create_pretraining_data.py": "--input_path words.jsonl --output_prefix made --log_interval 10000"
    " --model_name vocab --tokenizer_name ErnieTokenizer --data_format JSON --split_sentences --chinese"
    " --cn_splited --cn_whole_word_segment",
}
ERNIE_SCRIPT, ERNIE_TOKENIZER = "make_pretrain_data.py", "tokenizing_ernie.py"
MESSAGES = """
from array import array
from types import SimpleNamespace as Feature
FeatureList = FeatureLists = Feature
def Int64List(value):
    return array("h", value).tobytes()
class SequenceExample(Feature):
    def SerializeToString(self):
        lists = self.feature_lists.feature_list.values()
        return b"".join(feature.int64_list for one in lists for feature in one.feature)
"""
PROPELLER = {  # releases differ in the folder
    f"propeller/{folder}/{name}_pb2.py": MESSAGES
    for folder in ("data", "paddle/data")
    for name in ("example", "feature")
} | {"propeller/__init__.py": "import logging\n\nlog = logging.getLogger('propeller')\n"}


@dataclass(frozen=True)
class Peer:
    """A peer that our data generation has to be `times` as fast as."""

    key: str
    name: str
    times: float
    files: tuple[str, ...]  # that a checkout has to hold
    generate: Callable[[Path, Text, Path, Path], tuple[float, Path]]
    """(checkout, text, vocabulary, empty folder) -> seconds of its processes, what it made."""

    def run(self, checkout: Path, text: Text, vocab: Path, folder: Path) -> SimpleNamespace:
        """The `seconds` of one run; its files are removed. Raises RunFailed where it makes nothing."""
        folder = folder / f"peer_{self.key}"
        folder.mkdir(parents=True)
        try:
            seconds, made = self.generate(checkout, text, vocab, folder)
            size, count = made.stat().st_size if made.is_file() else 0, len(read_documents(text.corpus))
        finally:
            shutil.rmtree(folder)
        if size < 20 * count:
            raise RunFailed(f"{made.name} of {size} bytes was made of {count} documents")
        return SimpleNamespace(seconds=seconds)


def find(checkout: Path, name: str) -> Path:
    """The file of this name in a checkout; of several, that in ernie-1.0's preprocess. Raises ConfigError."""
    found = sorted(checkout.absolute().rglob(name))
    if not found:
        raise ConfigError(f"{checkout}: no {name} in it; name a checkout of the project that has it")
    return max(found, key=lambda path: "ernie-1.0/preprocess" in path.as_posix())


def _paddlenlp(checkout: Path, text: Text, vocab: Path, folder: Path) -> tuple[float, Path]:
    """Words, JSON lines, ids: with one worker each."""
    documents = [{"content": document} for document in read_documents(text.corpus)]
    files = {
        "LAC/__init__.py": "class LAC:\n    def __init__(self, mode=''):\n        pass\n",
        "vocab/vocab.txt": "\n".join(Vocab.load(vocab).id_to_token) + "\n",
        "raw/text-of-the-benchmark.json": json.dumps(documents, ensure_ascii=False),
    }
    _write(folder, files)
    environment = {"PYTHONPATH": str(folder), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    seconds = 0.0
    for name, options in PADDLENLP_SCRIPTS.items():
        command = [sys.executable, find(checkout, name), *options.split(), "--workers", "1"]
        seconds += run(command, folder, environment).seconds
    return seconds, folder / "made.bin"


def _ernie(checkout: Path, text: Text, vocab: Path, folder: Path) -> tuple[float, Path]:
    """Words by jieba, then the script; it has no workers."""
    package = str(find(checkout, ERNIE_TOKENIZER).parent)
    _write(folder, {**PROPELLER, "ernie/__init__.py": f"__path__ = [{package!r}]\n"})
    words, made = folder / "words.txt", folder / "made.gz"
    spaced = run(call_command("benchmarks.datagen_parts", "spaced_words", corpus=text.corpus, out=words))
    command = [sys.executable, find(checkout, ERNIE_SCRIPT), words, made, "--vocab", vocab]
    return spaced.seconds + run(command, folder, {"PYTHONPATH": str(folder)}).seconds, made


def _write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")


PEERS = (
    Peer("paddlenlp", "PaddleNLP's ernie-1.0 scripts", 15.0, tuple(PADDLENLP_SCRIPTS), _paddlenlp),
    Peer("ernie", "Baidu's demo script", 12.0, (ERNIE_SCRIPT, ERNIE_TOKENIZER), _ernie),
)
