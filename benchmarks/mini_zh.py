"""What pre-training is worth at a small scale: five Chinese tasks fine-tuned from a mini_zh checkpoint and
from random weights, same settings, two seeds, beside the majority baseline; written as Markdown tables with a
picture of the curves.

    bash run_pretrain.sh tasks/recipes/mini_zh.yaml data.corpus=... data.query_log=... data.entity_dicts=...
    python -m benchmarks.mini_zh out/mini_zh --data FOLDER --out out/mini_zh_finetune --jobs 2

FOLDER holds one folder for each task: chnsenticorp, lcqmc, xnli, cmrc2018, msra_ner. Finished runs are not
repeated."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.harness import ROOT, RunFailed, publish, run, table
from ernie2.checkpoint import checkpoints
from ernie2.report import curves_svg
from ernie2.strict import ConfigError, cli

# Small models learn at larger rates than the paper's; sequences are as long as in pre-training. The same for
# both starts.
COMMON = ["peak_lr=3.0e-4", "warmup_proportion=0.1", "max_seq_len=128", "batch_size=32"]
SETTINGS = {  # part of the training data, so that twenty runs take half an hour on two cores
    "chnsenticorp": ["epochs=1", "max_train_samples=4000"],
    "lcqmc": ["epochs=2", "max_train_samples=5000"],
    "xnli": ["epochs=2", "max_train_samples=3000"],
    "cmrc2018": ["epochs=1", "max_train_samples=1200", "doc_stride=64", "max_query_len=32"],
    "msra_ner": ["epochs=2", "max_train_samples=6000", "batch_size=16", "doc_stride=64"],
}
STARTS = ("pre-trained", "random")
SEEDS = 2


def fine_tune(task: str, start: str, checkpoint: Path, args: argparse.Namespace) -> dict:
    """Runs one job unless it is finished. Returns its result.json."""
    folder, threads = args.out / task / start, str(max(1, (os.cpu_count() or 1) // args.jobs))
    if not (folder / "result.json").is_file():
        init = (
            ["init_from=none", f"config_from={checkpoint}"]
            if start == "random"
            else [f"init_from={checkpoint}"]
        )
        where = [f"data_dir={args.data / task}", f"out_dir={folder}", f"repeat={SEEDS}"]
        settings = [*init, *where, *COMMON, *SETTINGS[task]]
        command = [sys.executable, "-m", "ernie2.finetune", f"tasks/finetune/{task}.yaml", *settings]
        try:
            run(command, environment={"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads})
        except RunFailed as error:
            raise ConfigError(f"{task} from {start} weights: {error}") from None
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def pretraining_table(result: dict) -> list[str]:
    """Dev results of every pre-training task beside chance."""
    rows = []
    for task, splits in result["tasks"].items():
        dev = splits["dev"]
        keys = ("losses", "chance_loss", "accuracy", "chance")
        rows += [[task, head, *(f"{dev[key][head]:.3f}" for key in keys)] for head in dev["losses"]]
    return table(["task", "head", "dev loss", "frequency guess", "dev accuracy", "frequency guess"], rows)


def finetuning_table(results: dict[tuple[str, str], dict]) -> list[str]:
    """Metrics of both starts, seed by seed."""
    rows = []
    for task in SETTINGS:
        both = [results[task, start] for start in STARTS]
        for split, metrics in both[0]["metrics"].items():
            for metric in metrics:
                means = [result["metrics"][split][metric] for result in both]
                cells = [task, metric]
                for result, mean in zip(both, means, strict=True):
                    seeds = [f"{one['metrics'][split][metric]:.2f}" for one in result["runs"]]
                    cells.append(f"{', '.join(seeds)}; **{mean:.2f}**")
                baseline = both[0]["majority"][split][metric]
                rows.append([*cells, f"{means[0] - means[1]:+.2f}", f"{baseline:.2f}"])
    head = [f"{start}: seeds, mean" for start in STARTS]
    return table(["task", "metric", *head, "difference", "baseline"], rows)


@cli
def main(argv: Sequence[str]) -> None:
    """Command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m benchmarks.mini_zh", description=__doc__, formatter_class=raw)
    add, svg = parser.add_argument, ROOT / "benchmarks/results/mini_zh.svg"
    add("pretrained", type=Path, help="out_dir of the pre-training run")
    add("--data", type=Path, required=True, help="folder of the fine-tuning data")
    add("--out", type=Path, default=Path("out/mini_zh_finetune"), help="folder of the fine-tuning runs")
    add("--jobs", type=int, default=2, help="fine-tunings at a time, one thread each")
    add("--tables", type=Path, default=Path("out/mini_zh_tables.md"), help="Markdown tables to write")
    add("--svg", type=Path, default=svg, help="picture to write")
    args = parser.parse_args(argv)
    found = checkpoints(args.pretrained)
    if not found:
        raise ConfigError(f"{args.pretrained}: no checkpoint (step_*) there; run the mini_zh recipe first")
    checkpoint = found[-1][1]
    with ThreadPoolExecutor(args.jobs) as pool:
        jobs = {
            (task, start): pool.submit(fine_tune, task, start, checkpoint, args)
            for task in SETTINGS
            for start in STARTS
        }
        results = {key: job.result() for key, job in jobs.items()}
    result = json.loads((args.pretrained / "result.json").read_text(encoding="utf-8"))
    steps, minutes = (
        f"{result['steps']:,} steps, {result['tokens'] / 1e6:.1f} M tokens",
        result["seconds"] / 60,
    )
    lines = [f"Pre-training: {steps}, {minutes:.0f} minutes.", "", *pretraining_table(result), ""]
    lines += [
        f"Fine-tuning from {checkpoint.name}, percent, {SEEDS} seeds.",
        "",
        *finetuning_table(results),
        "",
    ]
    publish("\n".join(lines), args.tables)
    args.svg.write_text(curves_svg(args.pretrained), encoding="utf-8")


if __name__ == "__main__":
    main()
