"""What is learned: the paper's comparisons in small, on anybody's corpus. Arms differ in what is compared
alone; they share shards, steps, batch and learning rate, and are fine-tuned alike.

    python -m benchmarks.learning table7_zh --corpus 'zh/*.txt.gz' --query-log log.tsv --finetune FOLDER

| experiment | arms |
|---|---|
| table7_zh, table7_en | continual multi-task, multi-task, continual learning (paper, Table 7) |
| table6 | random weights, BERT, ERNIE 1.0, ERNIE 2.0 by 100, 1,000 and all training examples (Table 6) |
| ablation | all five tasks, and each left out once |

FOLDER holds one folder for each fine-tuning task. Finished runs are kept in --out and not repeated; a run
that was broken off goes on from its last checkpoint. The page says how each arm ended, seed by seed."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import stats

from benchmarks.harness import RunFailed, machine_facts, publish, run, say, table
from ernie2.checkpoint import checkpoints
from ernie2.pages import write
from ernie2.strict import ConfigError, cli

ZH = ("knowledge_masking", "sentence_distance", "ir_relevance", "discourse_relation", "sentence_reordering")
EN = ("knowledge_masking", "capitalization", "token_document", "sentence_reordering")
MODES = ("continual_multitask", "multitask", "continual")
RANDOM = "random"
"""The arm that is fine-tuned from random weights of the first arm's shape."""
SEEDS = (11, 12, 13)
"""Recipes were chosen with seed 1."""
# Small models learn at larger rates than the paper's, and sequences are as long as in pre-training.
FINETUNING = [
    "peak_lr=3.0e-4",
    "warmup_proportion=0.1",
    "max_seq_len=128",
    "batch_size=32",
    "lr_schedule=linear",
]
SPANS = ["doc_stride=64", "max_query_len=32"]


def stages(tasks: Sequence[str]) -> str:
    """A curriculum of one task a stage, as an override."""
    return f"curriculum.stages=[{','.join(f'[{task}]' for task in tasks)}]"


@dataclass(frozen=True)
class Experiment:
    """Arms and fine-tuning tasks with the overrides of each; numbers of training examples (0: all)."""

    recipe: str
    tasks: tuple[str, ...]
    arms: dict[str, list[str]]
    finetune: dict[str, list[str]]
    examples: tuple[int, ...] = (0,)
    floor: bool = False
    shares: dict[str, int] = field(default_factory=dict)
    """Arm -> tasks it has, where not all: its steps_per_task make up for those it has not."""


def _modes(recipe: str, tasks: tuple[str, ...], finetune: dict[str, list[str]]) -> Experiment:
    arms = {mode: [f"curriculum.mode={mode}", stages(tasks)] for mode in MODES}
    return Experiment(recipe, tasks, arms, finetune)


def _alone(levels: str) -> list[str]:
    return [stages(ZH[:1]), f"masking.level={levels}"]


_CLASSES = {"chnsenticorp": ["epochs=2"], "lcqmc": ["epochs=1"], "xnli": ["epochs=1"]}
EXPERIMENTS = {
    "table7_zh": _modes("mini_zh", ZH, _CLASSES),
    "table7_en": _modes("mini_en", EN, {"sst2": ["epochs=1"], "mrpc": ["epochs=3"], "qnli": ["epochs=1"]}),
    "table6": Experiment(
        "mini_zh",
        ZH,
        {"bert": _alone("basic"), "ernie1": _alone("[[basic,phrase,entity]]"), "ernie2": [stages(ZH)]},
        {
            **_CLASSES,
            "bq": ["epochs=1"],
            "msra_ner": ["epochs=2", "batch_size=16", "doc_stride=64"],
            "cmrc2018": ["epochs=2", *SPANS],
            "drcd": ["epochs=2", *SPANS],
        },
        examples=(100, 1_000, 0),
        floor=True,
        shares={"bert": 1, "ernie1": 1},
    ),
    "ablation": Experiment(
        "mini_zh",
        ZH,
        {"all": [stages(ZH)]} | {f"no {out}": [stages([t for t in ZH if t != out])] for out in ZH[1:]},
        _CLASSES,
        shares=dict.fromkeys([f"no {out}" for out in ZH[1:]], 4),
    ),
}


class Study:
    """An experiment in a folder: runs what is not there, reads what is."""

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        self.name, self.args, self.plan = name, args, EXPERIMENTS[name]
        self.seeds = SEEDS[: args.seeds]
        self.arms = [*self.plan.arms, *[RANDOM] * self.plan.floor]

    def folder(self, arm: str, seed: int) -> Path:
        """Where an arm of one seed is, its fine-tunings below it."""
        return self.args.out / self.name / arm.replace(" ", "_") / str(seed)

    def _recipe(self, arm: str, seed: int) -> list[str]:
        args, plan = self.args, self.plan
        steps = args.steps * len(plan.tasks) // plan.shares.get(arm, len(plan.tasks))
        shared = args.out / f"data_{plan.recipe}"
        settings = {
            "seed": seed,
            "out_dir": self.folder(arm, seed),
            "data.corpus": args.corpus,
            "data.query_log": args.query_log,
            "data.entity_dicts": args.dicts,
            "data.shards_dir": shared / "shards",
            "model.vocab_file": shared / "vocab.txt",
            "curriculum.steps_per_task": steps,
            "runtime.save_every": 500,
            "runtime.keep_last": 1,
        }
        given = [f"{key}={value}" for key, value in settings.items() if value is not None]
        return [f"tasks/recipes/{plan.recipe}.yaml", *given, *plan.arms[arm], *args.set]

    def pretrain(self, arm: str, seed: int) -> dict:
        """The result of an arm's pre-training, run if need be. begun.json notes its settings: other ones
        must not pass for them."""
        folder, settings = self.folder(arm, seed), self._recipe(arm, seed)
        begun = folder / "begun.json"
        if begun.is_file() and json.loads(begun.read_text(encoding="utf-8")) != settings:
            raise ConfigError(f"{begun}: made with other settings; use another --out, or remove {folder}")
        if not (folder / "result.json").is_file():
            say(f"{self.name}: pre-training {arm}, seed {seed}")
            folder.mkdir(parents=True, exist_ok=True)
            begun.write_text(json.dumps(settings), encoding="utf-8")
            self._call(
                "data_gen", [*self._recipe(self.arms[0], SEEDS[0]), "--tasks", ",".join(self.plan.tasks)]
            )
            self._call("ernie2.pretrain", settings)
        return json.loads((folder / "result.json").read_text(encoding="utf-8"))

    def finetune(self, arm: str, seed: int, task: str, examples: int) -> float:
        """The best dev score of a fine-tuning in percent, the task's first metric; run if need be."""
        source = self.arms[0] if arm == RANDOM else arm
        checkpoint = checkpoints(self.folder(source, seed))[-1][1]
        folder = self.folder(arm, seed) / f"finetune_{task}_{examples or 'all'}"
        if not (folder / "result.json").is_file():
            say(f"{self.name}: fine-tuning {arm}, seed {seed}, {task}, {examples or 'all'} examples")
            settings = [
                f"data_dir={self.args.finetune / task}",
                f"out_dir={folder}",
                f"seed={seed}",
                *FINETUNING,
            ]
            settings += [*self.plan.finetune[task], "repeat=1"]
            settings += (
                [f"init_from={checkpoint}"]
                if arm != RANDOM
                else ["init_from=none", f"config_from={checkpoint}"]
            )
            settings += [f"max_train_samples={examples}", "epochs=20"] if examples else []
            self._call("ernie2.finetune", [f"tasks/finetune/{task}.yaml", *settings])
        metrics = json.loads((folder / "result.json").read_text(encoding="utf-8"))["metrics"]["dev"]
        return next(iter(metrics.values()))

    def _call(self, module: str, arguments: list[str]) -> None:
        threads = str(max(1, (os.cpu_count() or 1) // self.args.jobs))
        try:
            run([sys.executable, "-m", module, *arguments], environment={"OMP_NUM_THREADS": threads})
        except RunFailed as error:
            raise ConfigError(f"{module} {' '.join(arguments[:3])}: {error}") from None

    def carry_out(self) -> tuple[dict, dict]:
        """All runs: (arm, seed) -> pre-training result; (arm, task, examples) -> scores, seed by seed."""
        pairs = [(arm, seed) for seed in self.seeds for arm in self.plan.arms]
        self.pretrain(*pairs[0])  # makes the shards that all share
        with ThreadPoolExecutor(self.args.jobs) as pool:
            results = dict(zip(pairs, pool.map(lambda pair: self.pretrain(*pair), pairs), strict=True))
            cells = [
                (arm, task, count)
                for task in self.plan.finetune
                for count in self.plan.examples
                for arm in self.arms
                if self.args.finetune
            ]
            jobs = {
                cell: [pool.submit(self.finetune, cell[0], seed, *cell[1:]) for seed in self.seeds]
                for cell in cells
            }
            return results, {cell: [job.result() for job in seeds] for cell, seeds in jobs.items()}


def interval(values: Sequence[float]) -> float:
    """Half the width of the mean's 95% interval over seeds (Student's t); not a number for one seed."""
    if len(values) < 2:
        return float("nan")
    return float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))


def mean(values: Sequence[float], digits: int = 2, sign: str = "") -> str:
    """`mean ± half the interval`."""
    half = interval(values)
    text = f"{np.mean(values):{sign}.{digits}f}"
    return text if np.isnan(half) else f"{text} ± {half:.{digits}f}"


def pretraining_rows(study: Study, results: dict) -> Iterator[list[str]]:
    """Dev accuracy of each task's own head at the end, by arm, beside chance, on what was evaluated."""
    for task in study.plan.tasks:
        for arm in study.plan.arms:
            found = [results[arm, seed]["tasks"].get(task) for seed in study.seeds]
            if None in found:
                continue
            head = next(iter(found[0]["dev"]["losses"]))
            cells = [[one["dev"][key][head] for one in found] for key in ("losses", "accuracy", "chance")]
            percents = [[100 * value for value in values] for values in cells[1:]]
            yield [task, head, arm, mean(cells[0], 3), mean(percents[0]), mean(percents[1])]


def finetuning_rows(study: Study, scores: dict) -> Iterator[list[str]]:
    """Scores by task and number of examples: seeds, mean, and the difference from the first arm, paired."""
    for (arm, task, count), values in scores.items():
        differences = np.subtract(values, scores[study.arms[0], task, count])
        against = "" if arm == study.arms[0] else mean(differences, sign="+")
        seeds = ", ".join(f"{value:.2f}" for value in values)
        yield [task, str(count or "all"), arm, seeds, mean(values), against]


def forgetting_svg(study: Study) -> str:
    """Dev accuracy of every task's own head through training, one line an arm (mean over seeds)."""
    import io

    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(study.plan.tasks), 3.2), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(study.plan.tasks)), study.plan.tasks, strict=True):
        for arm in study.plan.arms:
            curves = [list(_curve(study.folder(arm, seed), task)) for seed in study.seeds]
            shared = min(map(len, curves))
            if shared:
                points = np.array([curve[:shared] for curve in curves]).mean(axis=0)
                axes.plot(*points.T, label=arm)
        axes.set_title(task, fontsize=10)
        axes.set_xlabel("optimizer steps")
    axes.legend(fontsize=8)
    figure.axes[0].set_ylabel("dev accuracy")
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    return buffer.getvalue()


def _curve(folder: Path, task: str) -> Iterator[tuple[int, float]]:
    for line in (folder / "eval.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["task"] == task:
            yield row["step"], next(iter(row["accuracy"].values()))


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m benchmarks.learning", description=__doc__, formatter_class=raw
    )
    add = parser.add_argument
    add("experiment", choices=EXPERIMENTS)
    add("--corpus", required=True, help="data.corpus of the pre-training")
    add("--query-log", help="data.query_log")
    add("--dicts", help="data.entity_dicts")
    add("--finetune", type=Path, help="folder of the fine-tuning data; without it pre-training alone")
    add("--out", type=Path, default=Path("out/learning"), help="folder of all runs (default: %(default)s)")
    add("--steps", type=int, default=5_000, help="curriculum.steps_per_task (default: %(default)s)")
    add(
        "--seeds",
        type=int,
        default=3,
        choices=range(1, len(SEEDS) + 1),
        help="how many seeds (default: %(default)s)",
    )
    add("--jobs", type=int, default=1, help="runs at a time, which share the cores (default: %(default)s)")
    add(
        "--set",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="further overrides of the recipe, for all arms",
    )
    add("--page", type=Path, help="Markdown page to write, its picture beside it")
    return parser


@cli
def main(argv: Sequence[str]) -> None:
    """Command line."""
    args = _parser().parse_args(argv)
    study = Study(args.experiment, args)
    facts = machine_facts()
    results, scores = study.carry_out()
    minutes = sum(result["seconds"] for result in results.values()) / 60
    tokens = sum(result["tokens"] for result in results.values()) / 1e6
    facts.append(f"- pre-training: {len(results)} runs, {tokens:.0f} M tokens, {minutes:.0f} minutes in all")
    heads = ["task", "head", "arm", "dev loss", "dev accuracy, %", "chance, %"]
    parts = [("Pre-training", table(heads, pretraining_rows(study, results)))]
    if scores:
        heads = [
            "task",
            "examples",
            "arm",
            f"dev, seeds {study.seeds}",
            "mean",
            f"minus {study.arms[0]}, paired",
        ]
        parts.append(("Fine-tuning", table(heads, finetuning_rows(study, scores))))
    if args.page:
        write(args.page.with_suffix(".svg"), forgetting_svg(study))
        parts.append(("Curves", [f"![curves]({args.page.with_suffix('.svg').name})"]))
    facts.append("- means with 95% intervals over seeds (Student's t)")
    publish("benchmarks.learning", argv, facts, parts, args.page)


if __name__ == "__main__":
    main()
