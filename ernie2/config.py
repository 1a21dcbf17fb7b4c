"""What a recipe may hold: every key is a field, the text under it gives meaning, unit, default and source.

No tensors here. The paper is arXiv 1907.12412; "released code" is PaddlePaddle/ERNIE, branch `repro`."""

import re
from collections.abc import Iterable
from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

from pydantic.dataclasses import dataclass

from ernie2.schema import (
    Betas,
    Checks,
    Dropout,
    NotNegative,
    Positive,
    Section,
    Share,
    Texts,
    build,
    expect,
    require,
)
from ernie2.strict import ConfigError, apply_overrides, cli, from_command_line, load_yaml  # noqa: F401 - cli
from ernie2.weights import embedding_rows

SIZES = {
    # layers, width, heads, feed-forward width; base and large are the paper's (section 4.1)
    "tiny": (2, 128, 2, 512),
    "mini": (4, 256, 4, 1024),
    "small": (6, 512, 8, 2048),
    "base": (12, 768, 12, 3072),
    "large": (24, 1024, 16, 4096),
}
_ROWS = {  # key -> key of config.json, rows without init_from (None: as many as the vocabulary has tokens)
    "vocab_rows": ("vocab_size", None),
    "max_position_embeddings": ("max_position_embeddings", 513),
    "sentence_type_vocab_size": ("type_vocab_size", 4),
    "task_type_vocab_size": ("task_type_vocab_size", 16),
}
Size = Literal["tiny", "mini", "small", "base", "large"]
Level = Literal["basic", "word", "phrase", "entity"]
NOT_EMPTY = expect("a list that is not empty", bool)
Probability = Annotated[float, expect("0 < {key} < 1", lambda n: 0 < n < 1)]


@dataclass
class ModelConfig(Section):
    """The encoder. Sizes and activation follow the released configurations."""

    vocab_file: str
    """Vocabulary, one token a line (or `token<TAB>id`). Missing: built from the corpus by data.vocab_size."""
    size: Size = "base"
    """Layers x width: tiny 2x128, mini 4x256, small 6x512, base 12x768, large 24x1024."""
    hidden_act: Literal["relu", "gelu"] = "relu"
    """Activation of the feed-forward layers. Released: relu (Chinese), gelu (English)."""
    init_from: str | None = None
    """Folder to warm-start from (weights only): a checkpoint of ours, PaddleNLP's, Hugging Face's or Baidu's
    (docs/weights.md). Default: random weights."""
    init_min_match: Share = 0.9
    """Share of the encoder's parameters that must be found in init_from, or the run refuses to start. A token
    embedding or layer that is missing or of another shape stops it in any case."""
    dropout: Dropout = 0.1
    """Dropout on hidden states and on attention probabilities. Released: 0.1."""
    layer_norm_eps: NotNegative[float] = 1e-5
    """Epsilon of every LayerNorm. Baidu's code uses 1e-5 (ERNIE issue 75)."""
    initializer_range: NotNegative[float] = 0.02
    """Standard deviation of the normal initial weights. Released: 0.02."""
    max_position_embeddings: Positive[int] | None = None
    """Rows of the position embedding. Default: of init_from, else 513. Released: 513 (zh), 512 (en)."""
    sentence_type_vocab_size: Positive[int] | None = None
    """Rows of the sentence embedding (segments A to D). Default: of init_from, or more as the shards need;
    else 4. Released (English 2.0): 4."""
    task_type_vocab_size: Positive[int] | None = None
    """Rows of the task embedding. Default: of init_from, or more as the tasks need; else 16, as released."""
    vocab_rows: Positive[int] | None = None
    """Rows of the token embedding when larger than the vocabulary (released Chinese: 18000 for 17,964
    tokens). Default: those of init_from, else as many as the vocabulary has tokens."""

    def __post_init__(self) -> None:
        self.unnamed = {key for key in _ROWS if getattr(self, key) is None}
        self.take_rows({config_key: rows for config_key, rows in _ROWS.values()})
        if self.init_from and Path(self.init_from).is_dir():
            try:
                self.take_rows(embedding_rows(self.init_from))
            except ConfigError as error:
                raise ConfigError(f"init_from: {error}") from None

    def take_rows(self, there: dict[str, int | None]) -> None:
        """Takes the rows of embeddings that the recipe does not name; `there`: key of config.json -> rows."""
        for key in self.unnamed:
            setattr(self, key, there.get(_ROWS[key][0], getattr(self, key)))


@dataclass
class DataConfig(Section):
    """Raw text and the shards made of it."""

    shards_dir: str
    """Folder of the shards, one sub-folder a task."""
    corpus: Texts = field(default_factory=list)
    """Documents: .txt, .jsonl or WikiExtractor's, also .gz, .bz2, .zst; globs allowed. Source `documents`."""
    query_log: Texts = field(default_factory=list)
    """TSV with header query,title,clicked or query,title,relevance: for tasks whose source is `pairs`."""
    marked_pairs: Texts = field(default_factory=list)
    """TSV with header sentence1,sentence2,marker: pairs of known connective, beside the corpus's own."""
    entity_dicts: Texts = field(default_factory=list)
    """User dictionaries, `word [tag]` a line, or in jieba's, HanLP's or LAC's form, or CSV; globs allowed."""
    encoding: str = "utf-8"
    """Encoding of those files of corpus, query log and dictionaries that are not UTF-8."""
    language: Literal["zh", "en"] = "zh"
    """Decides sentence splitting, words and the list of discourse connectives."""
    lower_case: bool = True
    """Lower-case text before tokenisation (the released vocabularies are lower-cased)."""
    segmenter: Literal["auto", "rjieba", "jieba"] = "auto"
    """Chinese words. rjieba gives jieba's twenty times as fast; auto: rjieba where it is installed."""
    vocab_size: int | None = None
    """Build the vocabulary from the corpus with this many entries when model.vocab_file does not exist."""
    max_seq_len: Annotated[int, expect("16 to 4096 tokens", lambda n: 16 <= n <= 4096)] = 512
    """Tokens in an example, [CLS] and [SEP] included."""
    mask_prob: Probability = 0.15
    """Share of units chosen for masked-LM prediction (paper section 3.2.1, ERNIE 1.0)."""
    dev_share: Probability = 0.005
    """Share of documents held out for evaluation: by a hash of their content, the same for every task."""
    max_reject_share: Annotated[Share, expect("a share between 0 and 1, more than 0", bool)] = 0.5
    """The generation stops when more than this share of documents or rows is rejected."""
    min_chars: NotNegative[int] = 0
    """Documents of fewer characters are left out."""
    max_chars: int | None = None
    """Documents of more characters are left out. Default: no limit."""
    strip_html: bool = True
    """Take left-overs of HTML out of the text: tags, entities."""
    normalise_width: bool = False
    """Full-width letters, digits and spaces become half-width."""
    simplify: bool = False
    """Traditional Chinese characters become simplified ones (needs the package opencc)."""
    drop_near_duplicates: bool = False
    """Leave out documents that nearly equal an earlier one (estimated Jaccard similarity of 0.8 or more)."""

    def _checks(self) -> Checks:
        """The longest document is longer than the shortest."""
        fits = self.max_chars is None or self.max_chars > self.min_chars
        yield require(fits, "max_chars", self.max_chars, "more than min_chars")


@dataclass
class BatchConfig(Section):
    """Batches hold tokens, not samples (paper section 4.1: 393,216 tokens)."""

    tokens: Positive[int] = 393_216
    """Real tokens per optimizer step over all ranks."""
    micro_tokens: Positive[int] = 8_192
    """Real tokens per forward on one device, on average. tokens / micro_tokens micro-batches make a step."""
    pool_batches: Positive[int] = 32
    """Batches whose samples are sorted by length together, so that padding is small; more = less padding."""

    def _checks(self) -> Checks:
        """Micro-batches make whole steps."""
        wanted = f"a multiple of micro_tokens ({self.micro_tokens})"
        yield require(self.tokens % self.micro_tokens == 0, "tokens", self.tokens, wanted)

    @property
    def micro_batches(self) -> int:
        """Micro-batches in one optimizer step, over all ranks."""
        return self.tokens // self.micro_tokens


@dataclass
class CurriculumConfig(Section):
    """Which task gets which optimizer step (paper section 3.1 and Table 7)."""

    stages: Annotated[
        list[Texts], expect("at least one stage, none of them empty", lambda found: found and all(found))
    ]
    """Tasks that start in each stage, by name."""
    steps_per_task: Positive[int]
    """N: optimizer steps that every task gets in the whole run."""
    mode: Literal["continual_multitask", "multitask", "continual"] = "continual_multitask"
    """continual_multitask: earlier tasks keep getting revisit_steps in every later stage; multitask: all
    tasks in one stage; continual: each stage trains its new tasks alone."""
    revisit_steps: int | Literal["auto"] = "auto"
    """r: steps an earlier task gets in each later stage. auto = N // (stages + 1) reproduces Table 7."""
    step: Literal["one_task", "all_tasks"] = "one_task"
    """An optimizer step is a global batch of one_task, or one of each active task (all_tasks)."""

    def _checks(self) -> Checks:
        """Names can be those of files; none stands twice."""
        names = [name for stage in self.stages for name in stage]
        for name in dict.fromkeys(names):
            well_formed = re.fullmatch(r"[a-z][a-z0-9_]*", name) is not None
            yield require(well_formed, "stages", name, "task names of a-z, 0-9 and _")
            once = names.count(name) == 1
            yield require(once, "stages", name, "each task in one stage only; it is revisited by itself")


@dataclass
class MaskingConfig(Section):
    """Which units the masked LM predicts (ERNIE 1.0)."""

    level: Level | Annotated[list[Level | Annotated[list[Level], NOT_EMPTY]], NOT_EMPTY] = field(
        default_factory=lambda: [["basic", "phrase", "entity"]]
    )
    """basic, word, phrase or entity: fixed for the run; a list: one entry a stage, the last one holding for
    later stages; an inner list: one of its levels is drawn for each sample."""

    def by_stage(self) -> list[list[str]]:
        """Levels to draw from, one list a stage; the last holds for later stages."""
        entries = [self.level] if isinstance(self.level, str) else self.level
        return [[entry] if isinstance(entry, str) else entry for entry in entries]

    def levels(self, stage: int) -> list[str]:
        """Levels to draw from in stage `stage` (from 0)."""
        stages = self.by_stage()
        return stages[min(stage, len(stages) - 1)]


@dataclass
class OptimizerConfig(Section):
    """AdamW with decoupled weight decay on matrices and embeddings only."""

    betas: Betas = field(default_factory=lambda: [0.9, 0.98])
    """Adam's betas (paper section 4.1)."""
    eps: NotNegative[float] = 1e-8
    """Adam's epsilon."""
    weight_decay: NotNegative[float] = 0.01
    """Decoupled decay, times the learning rate; LayerNorm and biases have none (released ERNIE 1.0 code)."""
    clip_norm: NotNegative[float] = 1.0
    """Global norm that gradients are clipped to; 0 = no clipping (released ERNIE 1.0 code)."""


@dataclass
class LrConfig(Section):
    """Learning rate as a pure function of the step."""

    peak: Positive[float]
    """Highest learning rate. Paper: 5e-5 (English), 1.28e-4 (Chinese)."""
    schedule: Literal["noam", "linear", "constant"] = "noam"
    """After a linear warm-up to the peak. noam: peak * sqrt(warmup / step); linear: to 0; constant."""
    warmup_steps: NotNegative[int] = 4000
    """Steps of warm-up (paper section 4.1: 4,000 for every task)."""
    restart: Literal["stage", "never", "task"] = "stage"
    """The warm-up counts from the start of each stage, of the run (never), or in each task's own steps."""


@dataclass
class RuntimeConfig(Section):
    """How the run is carried out; none of this changes what is learned, rounding aside."""

    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    """fp16: AMP O2 with master weights and dynamic loss scaling (paper: float16 on V100). Needs a GPU of
    compute capability 7.0 or more, bf16 one of 8.0; fp32 on CPU."""
    recompute: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    init_loss_scale: Positive[float] = 102_400.0
    """First loss scale of fp16 (released code)."""
    min_loss_scale: Positive[float] = 1.0
    """The run stops where the loss scale of fp16 would fall below this: it diverges."""
    max_bad_steps: NotNegative[int] = 3
    """Steps in a row that are skipped where a loss or gradient is not a number; one more stops the run."""
    startup_limit: Positive[float] = 600.0
    """Seconds that each part of the start-up of several processes may take; then who is missing is named."""
    log_every: Positive[int] = 10
    """Steps between lines of train.jsonl."""
    eval_every: Positive[int] = 1000
    """Steps between evaluations of every task seen so far; each stage's end is evaluated too."""
    eval_tokens: Positive[int] = 131_072
    """Dev tokens used per task and evaluation."""
    save_every: Positive[int] = 10_000
    """Steps between checkpoints; the end of each stage is saved too."""
    keep_last: Positive[int] = 3
    """Newest checkpoints kept."""
    max_steps: int | None = None
    """Stop after this many steps in all (for trials); the schedule is that of the full run."""
    visualdl: bool = False
    """Write VisualDL curves to out_dir/visualdl."""


@dataclass
class Recipe(Section):
    """One pre-training run, whole. `key=value` on the command line overrides any of it."""

    name: Annotated[
        str, expect("letters, digits, '_', '-' and '.'", re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*").fullmatch)
    ]
    """Name of the run."""
    out_dir: str
    """Folder of checkpoints and logs."""
    model: ModelConfig
    """The encoder."""
    data: DataConfig
    """Raw text and shards."""
    curriculum: CurriculumConfig
    """Stages and steps."""
    lr: LrConfig
    """Learning rate."""
    seed: NotNegative[int] = 1
    """Seed of everything: shards, weights, masks, dropout, order."""
    batch: BatchConfig = field(default_factory=BatchConfig)
    """Batch sizes in tokens."""
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    """Masking levels."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer."""
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    """Precision, logging, checkpoints."""

    def _checks(self) -> Checks:
        """What sections say of each other."""
        length, positions = self.data.max_seq_len, self.model.max_position_embeddings
        wanted = f"at most model.max_position_embeddings ({positions})"
        yield require(length <= positions, "data.max_seq_len", length, wanted)
        micro = self.batch.micro_tokens
        yield require(micro >= length, "batch.micro_tokens", micro, f"at least data.max_seq_len ({length})")
        stages = 1 if self.curriculum.mode == "multitask" else len(self.curriculum.stages)
        wanted = f"at most one entry for each of the {stages} stages (to draw a level per sample, "
        wanted += "use an inner list)"
        yield require(len(self.masking.by_stage()) <= stages, "masking.level", self.masking.level, wanted)

    def task_names(self) -> list[str]:
        """Names of the tasks in the order of the stages."""
        return [name for stage in self.curriculum.stages for name in stage]


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Loads a recipe and applies `key=value` overrides. Raises ConfigError (file, dotted key, remedy)."""
    overrides = list(overrides)
    mapping = apply_overrides(load_yaml(path), overrides)
    return build(Recipe, mapping, str(path), origins=from_command_line(overrides))
