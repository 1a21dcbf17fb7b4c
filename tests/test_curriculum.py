"""The schedule: Table 7 to the step, quotas, order, and the two step rules."""

from __future__ import annotations

from collections import Counter

import pytest

from ernie2.config import CurriculumConfig
from ernie2.curriculum import make_plan
from ernie2.strict import ConfigError

FOUR = [["a"], ["b"], ["c"], ["d"]]


def config(**keys) -> CurriculumConfig:
    return CurriculumConfig(**{"stages": FOUR, "steps_per_task": 50_000, **keys})


def test_table_7():
    """20k/10k/10k/10k, -/30k/10k/10k, -/-/40k/10k, -/-/-/50k (paper Table 7, continual multi-task row)."""
    assert make_plan(config()).table() == [
        ("a", [20_000, 10_000, 10_000, 10_000]),
        ("b", [0, 30_000, 10_000, 10_000]),
        ("c", [0, 0, 40_000, 10_000]),
        ("d", [0, 0, 0, 50_000]),
    ]


def test_other_modes():
    assert make_plan(config(mode="multitask")).table() == [(name, [50_000]) for name in "abcd"]
    assert make_plan(config(mode="continual")).table() == [
        (name, [50_000 * (stage == i) for stage in range(4)]) for i, name in enumerate("abcd")
    ]


@pytest.mark.parametrize("mode", ["continual_multitask", "multitask", "continual"])
@pytest.mark.parametrize("steps", [7, 50, 501])
def test_every_task_gets_its_steps_and_batches_in_order(mode, steps):
    plan = make_plan(config(mode=mode, steps_per_task=steps, stages=[["a", "b"], ["c"]]))
    turns = [turn for step in range(plan.steps) for turn in plan.turns(step)]
    assert Counter(turn.task for turn in turns) == dict.fromkeys("abc", steps)
    for name in "abc":
        assert [turn.batch for turn in turns if turn.task == name] == list(range(steps))


def test_largest_remaining_share_first():
    """The tasks of a stage are interleaved: after any prefix each task is within two steps of its share."""
    plan = make_plan(config(steps_per_task=50))
    stage = plan.stages[3]
    done = Counter()
    for i in range(stage.steps):
        done[plan.turns(stage.first_step + i)[0].task] += 1
        for name, count in stage.shares.items():
            assert abs(done[name] - (i + 1) * count / stage.steps) < 2


def test_all_tasks_step():
    plan = make_plan(config(steps_per_task=50, step="all_tasks"))
    assert [stage.steps for stage in plan.stages] == [20, 30, 40, 50]
    turns = [turn for step in range(plan.steps) for turn in plan.turns(step)]
    assert Counter(turn.task for turn in turns) == dict.fromkeys("abcd", 50)
    assert (
        max(
            Counter(turn.task for turn in plan.turns(step)).most_common(1)[0][1] for step in range(plan.steps)
        )
        == 1
    )


def test_pure_function_of_the_step():
    one, two = make_plan(config(steps_per_task=40)), make_plan(config(steps_per_task=40))
    backwards = [one.turns(step) for step in reversed(range(one.steps))]
    assert backwards[::-1] == [two.turns(step) for step in range(two.steps)]


def test_tasks_seen_and_bounds():
    plan = make_plan(config(steps_per_task=50))
    assert (
        plan.tasks_seen(0) == ["a"]
        and plan.tasks_seen(20) == ["a", "b"]
        and plan.tasks_seen(plan.steps - 1) == list("abcd")
    )
    with pytest.raises(IndexError):
        plan.turns(plan.steps)


def test_revisit_steps_that_leave_nothing():
    with pytest.raises(ConfigError, match="revisit_steps.*at most 16666"):
        make_plan(config(revisit_steps=17_000))
    assert make_plan(config(revisit_steps=0)).table()[0] == ("a", [50_000, 0, 0, 0])
