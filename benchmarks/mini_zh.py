"""What pre-training is worth at a small scale: five Chinese tasks fine-tuned from a mini_zh checkpoint and
from random weights, same settings, two seeds, beside the majority baseline; written as a Markdown table.

    bash run_pretrain.sh tasks/recipes/mini_zh.yaml data.corpus=... data.query_log=... data.entity_dicts=...
    python -m benchmarks.mini_zh out/mini_zh --data FOLDER --out out/mini_zh_finetune --jobs 2

FOLDER holds one folder for each task: chnsenticorp, lcqmc, xnli, cmrc2018, msra_ner. Finished runs are not
repeated. The curves of the pre-training: python -m ernie2.report out/mini_zh."""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.harness import machine_facts, positive, publish, run, table
from ernie2.checkpoint import checkpoints
from ernie2.strict import ConfigError, cli

# Small models learn at larger rates than the paper's; sequences are as long as in pre-training. The same for
# both starts; part of the training data, so that twenty runs take half an hour on two cores.
COMMON = "peak_lr=3.0e-4 warmup_proportion=0.1 max_seq_len=128 batch_size=32 repeat=2"
SETTINGS = {
    "chnsenticorp": "epochs=1 max_train_samples=4000",
    "lcqmc": "epochs=2 max_train_samples=5000",
    "xnli": "epochs=2 max_train_samples=3000",
    "cmrc2018": "epochs=1 max_train_samples=1200 doc_stride=64 max_query_len=32",
    "msra_ner": "epochs=2 max_train_samples=6000 batch_size=16 doc_stride=64",
}


def fine_tune(task: str, start: str, checkpoint: Path, args: argparse.Namespace) -> dict:
    """Runs one job unless it is finished. Returns its result.json."""
    folder, threads = args.out / task / start, str(max(1, (os.cpu_count() or 1) // args.jobs))
    if not (folder / "result.json").is_file():
        random = ["init_from=none", f"config_from={checkpoint}"]
        weights = random if start == "random" else [f"init_from={checkpoint}"]
        where = [f"data_dir={args.data / task}", f"out_dir={folder}"]
        command = [sys.executable, "-m", "ernie2.finetune", f"tasks/finetune/{task}.yaml", *weights, *where]
        threads = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        run([*command, *COMMON.split(), *SETTINGS[task].split()], environment=threads)
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def finetuning_rows(task: str, trained: dict, random: dict) -> Iterator[list[str]]:
    """Metrics of both starts, seed by seed."""
    for split, metrics in trained["metrics"].items():
        for metric, mean in metrics.items():
            cells, other = [task, metric], random["metrics"][split][metric]
            for result in (trained, random):
                seeds = [f"{one['metrics'][split][metric]:.2f}" for one in result["runs"]]
                cells.append(f"{', '.join(seeds)}; **{result['metrics'][split][metric]:.2f}**")
            yield [*cells, f"{mean - other:+.2f}", f"{trained['majority'][split][metric]:.2f}"]


@cli
def main(argv: Sequence[str]) -> None:
    """Command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m benchmarks.mini_zh", description=__doc__, formatter_class=raw)
    add = parser.add_argument
    add("pretrained", type=Path, help="out_dir of the pre-training run")
    add("--data", type=Path, required=True, help="folder of the fine-tuning data")
    add("--out", type=Path, default=Path("out/mini_zh_finetune"), help="folder of the runs and tables.md")
    add("--jobs", type=positive, default=2, help="fine-tunings at a time, which share the cores")
    args = parser.parse_args(argv)
    found = checkpoints(args.pretrained)
    if not found:
        raise ConfigError(f"{args.pretrained}: no checkpoint (step_*) there; run the mini_zh recipe first")
    starts = [(task, start) for task in SETTINGS for start in ("pre-trained", "random")]
    with ThreadPoolExecutor(args.jobs) as pool:
        results = dict(zip(starts, pool.map(lambda one: fine_tune(*one, found[-1][1], args), starts)))
    rows = []
    for task in SETTINGS:
        rows += finetuning_rows(task, results[task, "pre-trained"], results[task, "random"])
    head = ["task", "metric", "pre-trained: seeds, mean", "random: seeds, mean", "difference", "baseline"]
    parts = [("Fine-tuning, percent", table(head, rows))]
    publish("benchmarks.mini_zh", argv, machine_facts(), parts, args.out / "tables.md")


if __name__ == "__main__":
    main()
