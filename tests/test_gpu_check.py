"""The check of a card, on a CPU: the same trials with what a CPU has, and a page that names what fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from ernie2 import doctor, gpu_check


@pytest.mark.slow
def test_every_trial_runs_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu_check, "STEPS", 6)
    rows = {name: (state, found) for name, state, found in gpu_check.check(tmp_path, "tiny", (32,))}
    assert all(state == "ok" for state, _ in rows.values()), rows
    assert "differ by at most 0.0e+00" in rows["save and go on"][1]
    assert "tokens/s on one device" in rows["tiny, 32 tokens"][1]
    assert "ms; memory_efficient" in rows["attention"][1]  # plain is timed; the others are not for a CPU
    assert "all is well" in gpu_check.page(list((n, s, f) for n, (s, f) in rows.items()))


def test_a_trial_that_dies_is_a_row_and_not_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def dies(*_: object) -> tuple[str, str]:
        raise gpu_check.Trial("exit code 1: out of luck")

    for name in ("attention_kernels", "precision", "resume", "together", "speed"):
        monkeypatch.setattr(gpu_check, name, dies)
    cards = {"versions": "paddle 0", "driver": "none", "cards": ["V100, capability 7.0"], "half": "fp16"}
    monkeypatch.setattr(gpu_check, "describe", lambda: cards)
    rows = gpu_check.check(tmp_path)
    assert [state for _, state, _ in rows] == ["ok"] * 3 + ["problem"] * 5
    assert "| fp16 beside fp32 | problem | exit code 1: out of luck |" in gpu_check.page(rows)


def test_the_doctor_writes_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(gpu_check, "check", lambda folder: [("attention", "problem", f"{folder.is_dir()}")])
    assert doctor.main(["--gpu", "--out", str(tmp_path / "page.md")]) == 1
    assert (
        "| attention | problem | True |" in (tmp_path / "page.md").read_text()
        and "written to" in capsys.readouterr().out
    )
