"""What pre-training is worth at a small scale: five Chinese tasks fine-tuned from a mini_zh checkpoint and from random
weights, same settings, two seeds, beside the majority baseline; written as a Markdown report with curves.

    bash run_pretrain.sh tasks/recipes/mini_zh.yaml data.corpus=... data.query_log=... data.entity_dicts=...
    python -m benchmarks.mini_zh out/mini_zh --data FOLDER --out out/mini_zh_finetune --jobs 2

FOLDER holds one folder for each task: chnsenticorp, lcqmc, xnli, cmrc2018, msra_ner. Finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ernie2.checkpoint import checkpoints
from ernie2.report import curves_svg
from ernie2.strict import ConfigError, cli

ROOT = Path(__file__).resolve().parent.parent
# Small models learn at larger rates than the paper's; sequences are as long as in pre-training. The same for both starts.
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


def fine_tune(task: str, start: str, checkpoint: Path, data: Path, out: Path, threads: int) -> dict:
    """Runs one job unless it is finished. Returns its result.json."""
    folder = out / task / start
    if not (folder / "result.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        init = [f"init_from={checkpoint}"] if start == "pre-trained" else ["init_from=none", f"config_from={checkpoint}"]
        command = [sys.executable, "-m", "ernie2.finetune", f"tasks/finetune/{task}.yaml", *init, f"data_dir={data / task}",
                   f"out_dir={folder}", f"repeat={SEEDS}", *COMMON, *SETTINGS[task]]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        with (folder / "log.txt").open("w", encoding="utf-8") as log:
            code = subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=log).returncode
        if code:
            raise ConfigError(f"{task} from {start} weights ended with exit code {code}; see {folder / 'log.txt'}")
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def pretraining_table(result: dict) -> list[str]:
    """Dev results of every pre-training task beside chance."""
    lines = ["| task | head | dev loss | frequency guess | dev accuracy | frequency guess |", "|---|---|---|---|---|---|"]
    for task, splits in result["tasks"].items():
        dev = splits["dev"]
        lines += [f"| {task} | {head} | {loss:.3f} | {dev['chance_loss'][head]:.3f} | {dev['accuracy'][head]:.3f} | "
                  f"{dev['chance'][head]:.3f} |" for head, loss in dev["losses"].items()]
    return lines


def finetuning_table(results: dict[tuple[str, str], dict]) -> list[str]:
    """Dev metrics of both starts, seed by seed."""
    lines = ["| task | metric | pre-trained: seeds, mean | random: seeds, mean | difference | baseline |",
             "|---|---|---|---|---|---|"]
    for task in SETTINGS:
        ours, random = results[task, "pre-trained"], results[task, "random"]
        for split in ours["metrics"]:
            for metric in ours["metrics"][split]:
                cells, means = [], []
                for result in (ours, random):
                    seeds = [run["metrics"][split][metric] for run in result["runs"]]
                    means.append(result["metrics"][split][metric])
                    cells.append(f"{', '.join(f'{value:.2f}' for value in seeds)}; **{means[-1]:.2f}**")
                lines.append(f"| {task} | {metric} | {cells[0]} | {cells[1]} | {means[0] - means[1]:+.2f} | "
                             f"{ours['majority'][split][metric]:.2f} |")
    return lines


def main(argv: list[str]) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pretrained", type=Path, help="out_dir of the pre-training run")
    parser.add_argument("--data", type=Path, required=True, help="folder of the fine-tuning data")
    parser.add_argument("--out", type=Path, default=Path("out/mini_zh_finetune"), help="folder of the fine-tuning runs")
    parser.add_argument("--jobs", type=int, default=2, help="fine-tunings at a time, one thread each")
    parser.add_argument("--tables", type=Path, default=Path("out/mini_zh_tables.md"), help="Markdown tables to write")
    parser.add_argument("--svg", type=Path, default=ROOT / "benchmarks/results/mini_zh.svg", help="picture to write")
    args = parser.parse_args(argv)
    found = checkpoints(args.pretrained)
    if not found:
        raise ConfigError(f"{args.pretrained}: no checkpoint (step_*) there; run the mini_zh recipe first")
    checkpoint = found[-1][1]
    threads = max(1, (os.cpu_count() or 1) // args.jobs)
    with ThreadPoolExecutor(args.jobs) as pool:
        jobs = {(task, start): pool.submit(fine_tune, task, start, checkpoint, args.data, args.out, threads)
                for task in SETTINGS for start in STARTS}
        results = {key: job.result() for key, job in jobs.items()}
    result = json.loads((args.pretrained / "result.json").read_text(encoding="utf-8"))
    minutes = result["seconds"] / 60
    lines = [f"Pre-training: {result['steps']:,} steps, {result['tokens'] / 1e6:.1f} M tokens, {minutes:.0f} minutes.",
             "", *pretraining_table(result), "", f"Fine-tuning from {checkpoint.name}, percent on dev, {SEEDS} seeds.", "",
             *finetuning_table(results), ""]
    args.tables.write_text("\n".join(lines), encoding="utf-8")
    args.svg.write_text(curves_svg(args.pretrained), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    cli(main)()
