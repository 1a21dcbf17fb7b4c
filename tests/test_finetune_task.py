"""Task files and the layers of their settings; length-bucketed batches. No tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ernie2.finetune.data import cut_by_tokens, micro_batches, plan_batches, split_name
from ernie2.finetune.task import load_finetune
from ernie2.strict import ConfigError

TASKS = Path(__file__).resolve().parent.parent / "tasks" / "finetune"
NAMES = sorted(path.stem for path in TASKS.glob("*.yaml"))
CHINESE = set("cmrc2018 drcd dureader msra_ner xnli chnsenticorp lcqmc bq nlpcc_dbqa".split())
GLUE = set("cola sst2 mrpc stsb qqp mnli qnli rte wnli".split())
NEEDED = ["init_from=none", "config_from=x", "data_dir=x"]


def test_every_task_of_the_paper_has_a_file():
    assert set(NAMES) == CHINESE | GLUE


@pytest.mark.parametrize("name", NAMES)
def test_every_task_file_loads_and_names_its_metrics(name):
    task = load_finetune(TASKS / f"{name}.yaml", NEEDED)
    assert task.name == name
    for size in task.sizes:
        load_finetune(TASKS / f"{name}.yaml", NEEDED, size=size)
    chinese = name in CHINESE
    assert task.warmup_proportion == (0.0 if chinese else 0.1) and task.lr_schedule == "released"
    assert task.batch_order == "random" and task.drop_spaces == (chinese and task.kind == "classification")
    assert task.eval_every == ({"nlpcc_dbqa": 1000}.get(name, 100) if chinese else "end")
    pairs = {"xnli", "lcqmc", "bq", "nlpcc_dbqa", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"}
    assert task.pair is (True if name in pairs else None)
    assert task.weight_decay == (0.01 if chinese and name != "lcqmc" else 0.0)
    files = [getattr(task.files, role) for role in ("dev", "test")]
    names = {
        split_name(one) if len(found) > 1 else role
        for role, found in zip(("dev", "test"), files)
        for one in found
    }
    for splits in task.paper.values():
        assert set(splits) <= names
        for value in splits.values():
            assert isinstance(value, float) or set(value) <= set(task.metrics)
    text = (TASKS / f"{name}.yaml").read_text(encoding="utf-8")
    assert (
        text.startswith("#")
        and "Data:" in text
        and "icen" in text
        or "terms" in text
        or "application" in text
    )


def test_sizes_are_below_the_command_line(tmp_path):
    path = TASKS / "rte.yaml"
    assert load_finetune(path, NEEDED).peak_lr == 2e-5
    large = load_finetune(path, NEEDED, size="large")
    assert (large.peak_lr, large.epochs, large.batch_size) == (3e-5, 5, 16)
    assert load_finetune(path, [*NEEDED, "epochs=9"], size="large").epochs == 9
    assert load_finetune(path, NEEDED, size="base").batch_size == 4


def test_batch_size_and_batch_tokens_displace_each_other():
    xnli = load_finetune(TASKS / "xnli.yaml", [*NEEDED, "batch_size=8"])
    lcqmc = load_finetune(TASKS / "lcqmc.yaml", [*NEEDED, "batch_tokens=4096"])
    assert (xnli.batch_size, xnli.batch_tokens) == (8, None) and (lcqmc.batch_size, lcqmc.batch_tokens) == (
        None,
        4096,
    )


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["data_dir=x"], r"missing key 'init_from'; add init_from=CHECKPOINT or init_from=none"),
        (["init_from=none", "config_from=x"], r"missing key 'data_dir'"),
        (["init_from=none", "data_dir=x"], r"init_from: none needs config_from=CHECKPOINT"),
        (["init_from=a", "data_dir=x", "config_from=b"], r"config_from: found 'b'.*init_from=a settles it"),
        ([*NEEDED, "peek_lr=1"], r"unknown key 'peek_lr'; did you mean 'peak_lr'"),
        ([*NEEDED, "metrics=[mcc, f2]"], r"metrics: 'f2' does not fit kind classification"),
        ([*NEEDED, "labels=[a, a]"], r"labels: .*each label once"),
        ([*NEEDED, "labels=[0, 1]"], r"labels\[0\]: found 0, expected text"),
        ([*NEEDED, "max_seq_len=two"], r"max_seq_len: found text 'two', expected a whole number"),
        ([*NEEDED, "batch_size=4", "batch_tokens=512"], r"give one of the two"),
        (
            [*NEEDED, "kind=tagging", "metrics=[entity_f1]", "labels=[I-A, O]"],
            r"labels: found 'I-A', expected B-A",
        ),
        ([*NEEDED, "sizes.huge={}"], r"sizes: found 'huge'"),
        ([*NEEDED, "columns={text_a: x, text_b: x}"], r"columns\.text_a: 'x' is mapped twice"),
        ([*NEEDED, "skip_labels=['1']"], r"skip_labels: found '1'"),
        ([*NEEDED, "labels=[a, b, c]", "metrics=[mrr]"], r"positive_label: missing"),
        ([*NEEDED, "columns={context: x}"], r"columns: found 'context'"),
        ([*NEEDED, "repeat=0"], r"repeat: found 0"),
    ],
)
def test_mistakes_in_settings_name_the_key(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_finetune(TASKS / "lcqmc.yaml", overrides)


# Batches


def test_a_plan_takes_each_sequence_once_and_pads_little():
    task = load_finetune(TASKS / "lcqmc.yaml", [*NEEDED, "batch_order=length"])
    lengths = np.random.default_rng(0).integers(5, 120, 1003)
    batches = plan_batches(lengths, task, seed=3, epoch=0)
    assert sorted(np.concatenate(batches)) == list(range(1003)) and len(batches) == -(-1003 // 32)
    padded = sum(len(b) * lengths[b].max() for b in batches)
    assert padded / lengths.sum() < 1.06
    again, other_epoch, other_seed = (plan_batches(lengths, task, *key) for key in ((3, 0), (3, 1), (4, 0)))
    assert all((a == b).all() for a, b in zip(batches, again))
    assert any(list(a) != list(b) for a, b in zip(batches, other_epoch))
    assert any(list(a) != list(b) for a, b in zip(batches, other_seed))


def test_batches_by_tokens_keep_the_budget():
    task = load_finetune(TASKS / "lcqmc.yaml", [*NEEDED, "batch_tokens=512"])
    lengths = np.random.default_rng(0).integers(5, 128, 700)
    batches = plan_batches(lengths, task, seed=1, epoch=0)
    assert sorted(np.concatenate(batches)) == list(range(700))
    assert max(len(b) * lengths[b].max() for b in batches) <= 512


@pytest.mark.parametrize("batch", ["batch_tokens=65536", "batch_size=32"])
def test_random_batches_are_those_of_the_released_reader(batch):
    """A plain re-statement of its prepare_batch_data: samples as they are shuffled, a batch ends before the sample
    that would make it (longest x samples) or it too large."""
    task = load_finetune(TASKS / "xnli.yaml", [*NEEDED, batch])
    lengths = np.random.default_rng(0).integers(5, 512, 5_000)
    found = plan_batches(lengths, task, seed=1, epoch=0)
    order, wanted, longest = np.random.default_rng([1, 0]).permutation(5_000), [[]], 0
    for sample in order:
        longest = max(longest, lengths[sample])
        room = (len(wanted[-1]) + 1) * longest <= 65536 if task.batch_tokens else len(wanted[-1]) < 32
        if not room:
            wanted.append([])
            longest = lengths[sample]
        wanted[-1].append(sample)
    assert [list(one) for one in found] == wanted
    sizes = [len(one) for one in found[:-1]]
    assert max(sizes) < 1.3 * min(
        sizes
    )  # sorted by length a step would weigh its samples up to ten times more


def test_micro_batches_cut_to_size_and_number():
    lengths = np.array([3, 9, 4, 8, 5])
    parts = micro_batches(np.arange(5), lengths, 16)
    assert (
        sorted(np.concatenate(parts)) == list(range(5))
        and max(len(p) * lengths[p].max() for p in parts) <= 16
    )
    assert len(micro_batches(np.arange(5), lengths, 999, at_least=4)) == 4
    assert len(micro_batches(np.arange(2), lengths, 999, at_least=4)) == 2
    assert [len(part) for part in cut_by_tokens(np.array([1]), lengths, 2)] == [
        1
    ]  # longer than the budget: alone
