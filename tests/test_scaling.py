"""The scaling model by hand-made figures, its predictions for V100s, and the benchmark on a tiny model."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from benchmarks import scaling, scaling_v100
from benchmarks.scaling import Point
from benchmarks.scaling_model import (
    Cluster,
    Link,
    Work,
    all_reduce_seconds,
    efficiency,
    fit_compute,
    ring_seconds,
    step_seconds,
)
from ernie2.config import load_recipe

FAST, SLOW = Link(100e9, 0.0), Link(1e9, 0.0)
WORK = Work(
    flops_per_token=1e9,
    micro_tokens=1000,
    micro_batches=8,
    gradient_bytes=1e9,
    last_bytes=0.25e9,
    padding=0.0,
    bucket_bytes=1e12,
    exchanges=0,
)
CLUSTER = Cluster(
    flops=1e12, memory_bandwidth=1e12, per_node=4, inside=FAST, between=SLOW
)  # a micro-batch takes 1 s


def with_(changed: object, **fields: object) -> object:
    return type(changed)(**{**changed.__dict__, **fields})


# ---- the model
# ------------------------------------------------------------------------------------------------------


def test_ring_moves_twice_the_bytes_less_a_share():
    assert ring_seconds(1e9, 1, SLOW) == 0
    assert ring_seconds(1e9, 2, SLOW) == pytest.approx(1.0)
    assert ring_seconds(1e9, 1000, SLOW) == pytest.approx(2 * 999 / 1000)
    assert ring_seconds(0, 5, Link(1e9, 1e-3)) == pytest.approx(8e-3)


def test_levels_are_added():
    assert all_reduce_seconds(1e9, 4, CLUSTER) == ring_seconds(1e9, 4, FAST)
    assert all_reduce_seconds(1e9, 8, CLUSTER) == ring_seconds(1e9, 4, FAST) + ring_seconds(1e9, 2, SLOW)


def test_one_rank_computes_and_updates_alone():
    step = step_seconds(with_(WORK, update_bytes=1e12), CLUSTER, 1, imbalance=1.5)
    assert (step.compute, step.update, step.exposed, step.waiting) == (8.0, 1.0, 0.0, 0.0)
    assert step.tokens_per_s == pytest.approx(8000 / 9)


def test_the_busiest_rank_counts():
    assert [step_seconds(WORK, CLUSTER, ranks).compute for ranks in (2, 3, 8)] == [4.0, 3.0, 1.0]
    assert step_seconds(WORK, with_(CLUSTER, jitter=0.1), 2, imbalance=1.2).waiting == pytest.approx(
        4 * (1.2 * 1.1 - 1)
    )
    with pytest.raises(ValueError, match="9 ranks cannot share 8 micro-batches"):
        step_seconds(WORK, CLUSTER, 9)


def test_the_backward_pass_hides_all_but_the_last_bucket():
    none = step_seconds(WORK, CLUSTER, 8)
    assert none.exposed == pytest.approx(all_reduce_seconds(1e9, 8, CLUSTER))
    some = step_seconds(WORK, with_(CLUSTER, overlap=0.6), 8)
    assert some.exposed == pytest.approx(none.exposed - 0.6 * 2 / 3)
    fast = step_seconds(WORK, with_(CLUSTER, between=FAST, overlap=1.0), 8)
    assert fast.exposed == pytest.approx(all_reduce_seconds(0.25e9, 8, with_(CLUSTER, between=FAST)))


def test_small_buckets_pay_latency():
    slow = with_(CLUSTER, inside=Link(100e9, 1e-3), between=Link(1e9, 1e-3))
    few, many = (step_seconds(with_(WORK, bucket_bytes=size), slow, 8).exposed for size in (1e12, 1e7))
    assert many - few == pytest.approx((25 + 75 - 2) * all_reduce_seconds(0, 8, slow))
    exchanges = step_seconds(with_(WORK, exchanges=3), slow, 8).exposed - step_seconds(WORK, slow, 8).exposed
    assert exchanges == pytest.approx(3 * all_reduce_seconds(0, 8, slow))


def test_accumulation_makes_it_efficient():
    shares = [efficiency(with_(WORK, micro_batches=count), CLUSTER, 8) for count in (8, 16, 80)]
    assert shares == sorted(shares) and shares[0] < 0.6 and shares[2] > 0.9


def test_fit_recovers_micro_batch_and_update():
    assert fit_compute((2, 0.7), (8, 2.5)) == pytest.approx((0.3, 0.1))
    assert fit_compute((2, 0.5), (8, 2.5))[1] == 0.0  # noise must not give a negative update


# ---- V100s
# ----------------------------------------------------------------------------------------------------------


def test_predictions_are_ordered_and_bounded():
    rows = [(case, *scaling_v100.predict(*case)) for case in scaling_v100.cases()]
    assert {case[:2] for case, *_ in rows} == {(s, r) for s in ("base", "large") for r in (8, 48, 64)}
    for _, work, steps, shares in rows:
        assert work.micro_tokens * work.micro_batches == 393_216
        assert shares == sorted(shares) and 0 < shares[0] and shares[2] < 1
        times = [step.seconds for step in steps]
        assert times == sorted(times, reverse=True)
    networks = {network: shares[1] for (*size, network), _, _, shares in rows if size == ["base", 48]}
    assert list(networks.values()) == sorted(networks.values(), reverse=True) and len(networks) == 4
    slow = "25 Gb/s Ethernet, TCP"
    assert networks[slow] < 0.65 < networks["4 x 100 Gb/s InfiniBand"]
    times = scaling_v100.batch_for("base", 48, slow, 0.8)
    assert times > 1 and scaling_v100.predict("base", 48, slow, times)[2][1] >= 0.8
    assert scaling_v100.batch_for("base", 48, slow, 1.0) is None


def test_the_page_names_every_assumption_and_its_source():
    """docs/scaling.md's last table has the ranges of the code, in their order, each with a source."""
    page = (
        (ROOT / "docs/scaling.md")
        .read_text(encoding="utf-8")
        .partition("\n## Assumed\n")[2]
        .partition("\n## ")[0]
    )
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")
    ][2:]
    known = list(scaling_v100.ASSUMED.values())
    assert len(rows) == len(known) and all(source for *_, source in rows)
    for (_, figure, *_), (cautious, expected, optimistic) in zip(rows, known):
        assert cautious <= expected <= optimistic or cautious >= expected >= optimistic
        alone = f"{expected:g}"
        assert figure == (alone if cautious == optimistic else f"{alone} ({cautious:g} to {optimistic:g})")


def test_the_page_repeats_the_model():
    """docs/scaling.md's tables are what the model says today."""
    page = (ROOT / "docs/scaling.md").read_text(encoding="utf-8")
    for _, table in scaling_v100.v100_parts():
        assert all(row in page for row in table[2:])


def test_calibration_and_prediction(tmp_path):
    """Figures that the model explains exactly: 0.1 s a micro-batch, 0.05 s a step, 1.2 of contention, 1 GB/s."""
    recipe, seconds = load_recipe(scaling.write_recipe(tmp_path, [], "mini")), {}
    for point in scaling.POINTS:
        alone = 0.05 + 0.1 * point.micro_batches / point.processes
        seconds[point] = [alone * (1.2 if point.beside > 1 else 1.0)]
    found = scaling.Measured(recipe, seconds, [(4096, 1e-3), (4096 + 10**7, 11e-3)], 1.0)
    assert (found.micro, found.update, found.contention) == pytest.approx((0.1, 0.05, 1.2))
    assert found.link.bandwidth == pytest.approx(1e9)
    assert found.link.latency == pytest.approx(0.5e-3, rel=0.01)
    assert found.predict(scaling.ONE_MANY).seconds == pytest.approx(0.85)
    exchange = 4 * found.parameters / 1e9 + 4 * 2 * found.link.latency
    assert found.predict(scaling.TWO).seconds == pytest.approx(1.2 * 0.15 + exchange, rel=0.01)
    assert "| 1 process, 2 micro-batches | 250 | 8,192 | 1.00 | calibrates |  |" in scaling.points_table(
        found
    )


def test_log_lines_are_read_after_the_warm_up(tmp_path):
    log = tmp_path / "train.jsonl"
    lines = [
        {"step": step, "task": task, "tokens_per_s": rate}
        for step, rate in ((2, 1.0), (4, 1.0), (6, 100.0), (8, 50.0))
        for task in ("a", "b")
    ]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert scaling.log_seconds(log, 200) == [2.0, 4.0]


def test_names_of_points():
    assert Point(2, 8).name == "2 processes, 8 micro-batches"
    assert Point(1, 2, beside=2).name == "1 process, 2 micro-batches, 2 unconnected runs at once"


def test_options_of_no_sense_are_refused(capsys):
    with pytest.raises(SystemExit) as end:
        scaling.main(["--rounds", "0"])
    assert end.value.code == 2 and "--rounds: found 0" in capsys.readouterr().err


@pytest.mark.slow
def test_the_benchmark_runs(tmp_path):
    """Figures of a tiny model on a busy machine prove nothing, so exit code 1 (a prediction is off) is as
    good as 0."""
    options = ["--size", "tiny", "--steps", "8", "--rounds", "1"]
    command = [sys.executable, "-m", "benchmarks.scaling", *options, "--out"]
    done = subprocess.run(
        [*command, str(tmp_path / "report.md")],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr, done.stderr[-2000:]
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "2 processes, 8 micro-batches" in text and "| large | 64 |" in text
    assert list(tmp_path.iterdir()) == [tmp_path / "report.md"]
