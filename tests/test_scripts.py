"""The shell scripts: usage, which Python they take, how many processes they start, exit codes, and what
becomes of signals.

No Python runs here: a fake one says what it was asked. tests/test_default_run.py runs the scripts for real.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = (
    "run_pretrain.sh",
    "run_finetune.sh",
    "tests/run.sh",
    "ernie2/env.sh",
    "ernie2/launch.sh",
    ".ci/run",
)
SETTLED = (
    "ERNIE2_PYTHON",
    "ERNIE2_DEVICE",
    "ERNIE2_PADDLE_VERSION",
    "PADDLE_INDEX",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "CUDA_VISIBLE_DEVICES",
    "NPROC",
    "GPUS",
    "NNODES",
    "NODE_RANK",
    "MASTER",
    "RETRIES",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "SLURM_STEP_NUM_NODES",
    "OMPI_COMM_WORLD_SIZE",
)
SYSTEM = (
    "bash",
    "env",
    "basename",
    "dirname",
    "cut",
    "cat",
    "sha256sum",
    "sed",
    "tail",
    "grep",
    "sort",
    "awk",
    "paste",
    "mkdir",
    "mktemp",
    "find",
    "rm",
    "cp",
    "flock",
    "nproc",
    "chmod",
    "sleep",
    "touch",
    "ln",
)
PIP = ".venv/python -m pip install -q --disable-pip-version-check -c constraints.txt"
FAKE_PYTHON = """#!/usr/bin/env bash
# Says what it was asked, and acts out a Python that lacks everything until pip has installed something beside
# it.
echo "$(basename "$(dirname "$(dirname "$0")")")/$(basename "$0") $(printf '%q ' "${@//$'\\n'/ }")" >>"$FAKE_LOG"
here="$(dirname "$0")"
case "$1 ${2:-}" in
  "-c "*find_spec*) [ -f "$here/installed" ] && cat "$here/installed" || { echo "no paddle, yaml" >&2; exit 1; } ;;
  "-c "*version_info*) exit "${FAKE_OLD:-0}" ;;
  "-c "*gethostbyname*) echo "10.0.0.1:${3#*:} 10.0.0.7" ;;
  "-c "*"as web"*) exit "${FAKE_NO_INDEX:-0}" ;;
  "-c "*purelib*) echo "$here/../packages" ;;
  "-c "*urllib*) echo "${FAKE_MISSING:-1, 3}" ;;
  "-m venv") mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  "-m pip") [ -z "${FAKE_PIP_FAILS:-}" ] || exit 1; eval "${FAKE_PIP:-}"; echo cpu >"$here/installed" ;;
  "-m data_gen") exit "${FAKE_DATA_GEN:-0}" ;;
  "-m ernie2.pretrain") eval "${FAKE_PRETRAIN:-}" ;;
  "-m ernie2.doctor") exit "${FAKE_DOCTOR:-0}" ;;
  "-m paddle.distributed.launch") while [ "$1" != --log_dir ]; do shift; done; logs="$2"; eval "${FAKE_LAUNCH:-}" ;;
esac
"""


@pytest.fixture()
def checkout(tmp_path: Path) -> Path:
    """A copy of the scripts alone, with a PATH folder that holds a fake python3, and a log of what was
    called."""
    root = tmp_path / "checkout"
    for name in (*SCRIPTS, "constraints.txt", "constraints-paddle2.txt", "setup.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    programs = tmp_path / "base" / "bin"
    programs.mkdir(parents=True)
    for name in SYSTEM:
        found = shutil.which(name)
        if found:
            (programs / name).symlink_to(found)
    fake(programs / "python3", FAKE_PYTHON)
    return root


def heed_interrupts() -> None:
    """What a shell starts in the background ignores Ctrl-C, and so would all that it starts: these tests too,
    and their scripts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture()
def start(checkout: Path, tmp_path: Path) -> Callable[..., subprocess.Popen]:
    """start("run_pretrain.sh", "seed=2", NPROC="2") starts a script of the copy, with nothing but the fakes
    on PATH."""

    def run(script: str, *arguments: str, **environment: str) -> subprocess.Popen:
        kept = {key: value for key, value in os.environ.items() if key not in SETTLED}
        kept |= {
            "PATH": str(tmp_path / "base/bin"),
            "FAKE_LOG": str(tmp_path / "calls"),
            "TMPDIR": str(tmp_path),
            **environment,
        }
        return subprocess.Popen(
            ["bash", checkout / script, *arguments],
            env=kept,
            cwd=checkout,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=heed_interrupts,
        )

    return run


@pytest.fixture()
def call(start: Callable[..., subprocess.Popen]) -> Callable[..., subprocess.CompletedProcess]:
    """As `start`, to its end."""

    def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        process = start(script, *arguments, **environment)
        output, errors = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    return run


def fake(path: Path, text: str) -> None:
    """An executable file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def calls(tmp_path: Path) -> list[str]:
    """Lines of what the fake Pythons were asked, probes left out, and the log emptied."""
    log = tmp_path / "calls"
    lines = (
        [line.replace("\\", "") for line in log.read_text().splitlines() if line.split()[1] != "-c"]
        if log.exists()
        else []
    )
    log.unlink(missing_ok=True)
    return [line.strip() for line in lines]


def gpus(tmp_path: Path, count: int, compute: str = "7.0") -> None:
    """A fake nvidia-smi that lists `count` GPUs."""
    listing = "".join(f"echo 'GPU {i}: Fake (UUID: GPU-{i})'; " for i in range(count))
    fake(
        tmp_path / "base/bin/nvidia-smi",
        f'#!/usr/bin/env bash\ncase "$1" in -L) {listing};; *) echo {compute};; esac\n',
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_syntax(script):
    subprocess.run(["bash", "-n", ROOT / script], check=True)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("run_pretrain.sh", "RECIPE.yaml NPROC NNODES MASTER NODE_RANK PADDLE_INDEX"),
        ("run_finetune.sh", "TASK.yaml init_from= data_dir="),
    ],
)
def test_usage(call, tmp_path, script, words):
    for option in ("-h", "--help"):
        done = call(script, option)
        assert done.returncode == 0 and all(word in done.stdout for word in words.split())
    assert not calls(tmp_path)
    done = call(script, "task.yaml", "--recipee")
    assert done.returncode == 2 and "unknown option --recipee" in done.stderr


def test_finetune_needs_a_task(call, tmp_path):
    for arguments in ((), ("init_from=none",)):
        done = call("run_finetune.sh", *arguments)
        assert done.returncode == 2 and "no TASK.yaml" in done.stderr
    assert not calls(tmp_path)


def test_makes_an_environment_once_and_trains_in_it(call, tmp_path, checkout):
    first = call("run_pretrain.sh")
    assert first.returncode == 0 and "making .venv" in first.stderr and "paddle 3 for the CPU" in first.stderr
    assert calls(tmp_path) == [
        f"base/python3 -m venv {checkout}/.venv",
        f"{PIP} -e .[cpu,test]",
        ".venv/python -m ernie2.plan tasks/recipes/demo.yaml --ranks 1",
        *(f".venv/python -m {module} tasks/recipes/demo.yaml" for module in ("data_gen", "ernie2.pretrain")),
    ]
    again = call("run_pretrain.sh", "mine.yaml", "seed=2")
    assert again.returncode == 0 and not again.stderr
    assert calls(tmp_path) == [
        ".venv/python -m ernie2.plan mine.yaml seed=2 --ranks 1",
        *(f".venv/python -m {module} mine.yaml seed=2" for module in ("data_gen", "ernie2.pretrain")),
    ]
    call("run_finetune.sh", "task.yaml", "init_from=none")
    assert calls(tmp_path) == [".venv/python -m ernie2.finetune task.yaml init_from=none"]
    call("tests/run.sh", "-m", "not slow")
    assert calls(tmp_path) == [
        f".venv/python -m pytest -q -n 2 --dist loadfile --rootdir {checkout} -m not slow"
    ]


def test_remakes_an_environment_that_was_cut_short_or_is_out_of_date(call, tmp_path, checkout):
    failed = call("run_pretrain.sh", FAKE_PIP_FAILS="1")
    assert failed.returncode == 1 and "pip could not install" in failed.stderr
    (checkout / ".venv/leftover").touch()
    second = call("run_pretrain.sh")
    assert second.returncode == 0 and "unfinished or out of date" in second.stderr
    assert not (checkout / ".venv/leftover").exists()
    with (checkout / "constraints.txt").open("a") as file:
        file.write("\n# changed\n")
    assert "unfinished or out of date" in call("run_pretrain.sh").stderr
    gpus(tmp_path, 1)
    assert "paddle 3 for the GPU" in call("run_pretrain.sh").stderr
    assert call("run_pretrain.sh", ERNIE2_DEVICE="cpu").stderr == ""  # a GPU's paddle does on a CPU


@pytest.mark.parametrize(
    ("compute", "index"),
    [("7.0", "cu118"), ("8.6", "cu118"), ("9.0", "cu126"), ("12.0", "cu129"), ("[N/A]", "cu118")],
)
def test_a_gpu_gets_its_paddle_from_paddles_index(call, tmp_path, compute, index):
    gpus(tmp_path, 1, compute)
    call("run_pretrain.sh")
    assert calls(tmp_path)[1] == (
        f"{PIP} -e .[gpu,test] --extra-index-url https://www.paddlepaddle.org.cn/packages/stable/{index}/"
    )


def test_without_paddles_index_a_gpu_gets_paddle_2_6_and_its_cuda_libraries(call, tmp_path, checkout):
    gpus(tmp_path, 1)
    packages = checkout / ".venv-paddle2/packages"
    libraries = "nvidia/cudnn/lib/libcudnn.so.8", "nvidia/nccl/lib/libnccl.so.2", "paddle/libs/libphi.so"
    make = "; ".join(f"mkdir -p {(packages / name).parent}; touch {packages / name}" for name in libraries)
    made = call("run_pretrain.sh", FAKE_NO_INDEX="1", FAKE_PIP=make)
    assert (
        made.returncode == 0 and "cu118/ does not answer: paddle 2.6 and CUDA 11.8 from PyPI" in made.stderr
    )
    pip = PIP.replace(".venv", ".venv-paddle2").replace("constraints", "constraints-paddle2")
    assert calls(tmp_path)[1] == f"{pip} -e .[gpu2,test]"
    links = {path.name: path.resolve() for path in (packages / "paddle/libs").iterdir() if path.is_symlink()}
    assert set(links) == {"libcudnn.so", "libcudnn.so.8", "libnccl.so", "libnccl.so.2"}
    assert links["libcudnn.so"] == (packages / libraries[0]).resolve()
    again = call("run_pretrain.sh", FAKE_NO_INDEX="1")
    assert again.returncode == 0 and "making" not in again.stderr
    assert calls(tmp_path)[0].startswith(".venv-paddle2/python -m ernie2.plan")
    gpus(tmp_path, 1, "9.0")
    hopper = call("run_pretrain.sh", FAKE_NO_INDEX="1")
    assert (
        hopper.returncode == 2 and "cu126/ does not answer, and PyPI has no paddle compiled" in hopper.stderr
    )


def test_index_and_device_can_be_named(call, tmp_path):
    gpus(tmp_path, 1)
    call("run_pretrain.sh", PADDLE_INDEX="file:///wheels")
    assert calls(tmp_path)[1].endswith("--extra-index-url file:///wheels")
    wrong = call("run_pretrain.sh", ERNIE2_DEVICE="tpu")
    assert wrong.returncode == 2 and "ERNIE2_DEVICE: found 'tpu'" in wrong.stderr


def test_paddle_2_6_has_an_environment_of_its_own(call, tmp_path, checkout):
    call("tests/run.sh")
    assert calls(tmp_path)[1] == f"{PIP} -e .[cpu,test]"
    pip = PIP.replace(".venv", ".venv-paddle2").replace("constraints", "constraints-paddle2")
    first = call("tests/run.sh", "-m", "core", ERNIE2_PADDLE_VERSION="2.6")
    assert "making .venv-paddle2" in first.stderr and "paddle 2.6 for the CPU" in first.stderr
    assert calls(tmp_path)[:2] == [f"base/python3 -m venv {checkout}/.venv-paddle2", f"{pip} -e .[cpu2,test]"]
    with (checkout / "constraints-paddle2.txt").open("a") as file:
        file.write("\n# changed\n")
    gpus(tmp_path, 1)
    again = call("tests/run.sh", ERNIE2_PADDLE_VERSION="2.6")
    assert (
        "paddle 2.6 for the GPU" in again.stderr and calls(tmp_path)[1] == f"{pip} -e .[gpu2,test]"
    )  # from PyPI
    assert call("tests/run.sh", ERNIE2_DEVICE="cpu").stderr == ""  # .venv is still as it should be
    wrong = call("tests/run.sh", ERNIE2_PADDLE_VERSION="2.5")
    assert wrong.returncode == 2 and "ERNIE2_PADDLE_VERSION: found '2.5', expected 3 or 2.6" in wrong.stderr


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX", ""])
def test_an_active_environment_is_used_as_it_is(call, tmp_path, checkout, variable):
    folder = tmp_path / ("active" if variable else "base")
    fake(folder / "bin/python", FAKE_PYTHON)
    (folder / "bin/installed").write_text("cpu\n")
    done = call("run_pretrain.sh", **({variable: str(folder)} if variable else {}))
    assert done.returncode == 0 and "as it is" in done.stderr and not (checkout / ".venv").exists()
    name = "active/python" if variable else "base/python3"
    assert [line.split(" -m ")[0] for line in calls(tmp_path)] == [name] * 3


def test_an_active_environment_that_lacks_something_is_left_alone(call, tmp_path, checkout):
    fake(tmp_path / "active/bin/python", FAKE_PYTHON)
    done = call("run_pretrain.sh", VIRTUAL_ENV=str(tmp_path / "active"))
    assert (
        done.returncode == 0
        and f"{tmp_path}/active/bin/python lacks what is needed (no paddle, yaml)" in done.stderr
    )
    assert not (tmp_path / "active/bin/installed").exists() and (checkout / ".venv/.complete").exists()
    own = call(
        "run_pretrain.sh",
        VIRTUAL_ENV=str(checkout / ".venv"),
        PATH=f"{checkout}/.venv/bin:{tmp_path}/base/bin",
    )
    assert own.returncode == 0 and not own.stderr


def test_named_interpreter(call, tmp_path, checkout):
    fake(tmp_path / "own/bin/py", FAKE_PYTHON)
    wrong = call("run_pretrain.sh", ERNIE2_PYTHON=str(tmp_path / "own/bin/py"))
    assert wrong.returncode == 2 and "ERNIE2_PYTHON" in wrong.stderr
    (tmp_path / "own/bin/installed").write_text("cpu\n")
    assert call("run_pretrain.sh", ERNIE2_PYTHON=str(tmp_path / "own/bin/py")).returncode == 0
    assert calls(tmp_path)[-1].startswith("own/py -m ernie2.pretrain") and not (checkout / ".venv").exists()


def test_no_python_that_fits(call):
    done = call("run_pretrain.sh", FAKE_OLD="1")
    assert done.returncode == 2 and "no Python 3.10, 3.11 or 3.12 on PATH" in done.stderr


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"NPROC": "two"}, "NPROC: found 'two'"),
        ({"NPROC": "0"}, "NPROC: found '0'"),
        ({"GPUS": "0"}, "GPUS: found '0'"),
        ({"NNODES": "2"}, "MASTER: found ''"),
        ({"NNODES": "2", "MASTER": "host"}, "MASTER: found 'host'"),
        ({"NNODES": "2", "MASTER": "host:1", "NODE_RANK": "2"}, "NODE_RANK: found 2"),
    ],
)
def test_wrong_numbers_are_refused(call, tmp_path, settings, message):
    (tmp_path / "base/bin/installed").write_text("cpu\n")
    done = call("run_pretrain.sh", **settings)
    assert done.returncode == 2 and message in done.stderr and not calls(tmp_path)


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({"NPROC": "2"}, "--nnodes 1 --nproc_per_node 2 --log_dir LOGS --log_level ERROR PYTHON -u"),
        (
            {"NNODES": "2", "NODE_RANK": "1", "MASTER": "host:9"},
            "--nnodes 2 --nproc_per_node 1 --log_dir LOGS --log_level ERROR --master 10.0.0.1:9 --rank 1 "
            "--host 10.0.0.7 --job_id NNODES=2 PYTHON -u",
        ),
    ],
)
def test_launch_on_cpus(call, tmp_path, settings, options):
    (tmp_path / "base/bin/installed").write_text("cpu\n")
    call("run_pretrain.sh", **settings)
    made = calls(tmp_path)
    words = [
        "LOGS"
        if str(tmp_path / "ernie2.") in word
        else "PYTHON"
        if word.endswith("/python3") and number
        else word
        for number, word in enumerate(made[-1].split())
    ]
    assert (
        " ".join(words)
        == f"base/python3 -m paddle.distributed.launch {options} -m ernie2.pretrain tasks/recipes/demo.yaml"
    )
    recipe = "tasks/recipes/demo.yaml"
    between = "ernie2.doctor" if "NNODES" in settings else "data_gen"  # node 0 makes the shards
    assert made[:-1] == [
        f"base/python3 -m {module}" for module in (f"ernie2.plan {recipe} --ranks 2", f"{between} {recipe}")
    ]


def test_nodes_of_a_slurm_step(call, tmp_path):
    (tmp_path / "base/bin/installed").write_text("cpu\n")
    fake(
        tmp_path / "base/bin/scontrol",
        "#!/usr/bin/env bash\n[ \"$*\" = 'show hostnames n[4-5]' ] && printf 'n4\\nn5\\n'\n",
    )
    step = {"SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NODELIST": "n[4-5]", "SLURM_NODEID": "1"}
    call("run_pretrain.sh", **step, SLURM_STEP_NUM_TASKS="2")
    assert "--nnodes 2 " in (made := calls(tmp_path)[-1]) and "--master 10.0.0.1:8765 --rank 1 " in made
    done = call("run_pretrain.sh", **step, SLURM_STEP_NUM_TASKS="8")
    assert done.returncode == 2 and "8 tasks on 2 nodes; use --ntasks-per-node=1" in done.stderr


def test_nodes_of_mpirun(call, tmp_path):
    (tmp_path / "base/bin/installed").write_text("cpu\n")
    world = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "1"}
    call("run_pretrain.sh", **world, MASTER="n4:9")
    assert "--nnodes 2 " in (made := calls(tmp_path)[-1]) and "--master 10.0.0.1:9 --rank 1 " in made
    done = call("run_pretrain.sh", **world)
    assert done.returncode == 2 and "MASTER: found ''" in done.stderr
    done = call("run_pretrain.sh", **world | {"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, MASTER="n4:9")
    assert done.returncode == 2 and "4 processes on this node; use --map-by ppr:1:node" in done.stderr


@pytest.mark.parametrize(
    ("master", "node", "said"),
    [
        ("127.0.0.1:9", "0", "127.0.0.1:9 127.0.0.1\n"),
        ("127.0.0.1:9", "1", "127.0.0.1:9 127.0.0.1\n"),
        (
            "localhost:9",
            "0",
            "error: MASTER: localhost is 127.0.0.1 here, where no other node reaches it; give the address "
            "of node 0\n",
        ),
        ("no.such.invalid:9", "1", "error: MASTER: no.such.invalid is not found from here: "),
        (
            "127.0.0.2:9",
            "0",
            "error: MASTER: 127.0.0.2 is 127.0.0.2, but this node, NODE_RANK=0, is 127.0.0.1\n",
        ),
    ],
)
def test_master_becomes_an_address(master, node, said):
    """A name would make Paddle's launchers wait for each other for ever."""
    done = subprocess.run(
        ["bash", "-c", f'. {ROOT}/ernie2/env.sh; {sys.executable} -c "$ERNIE2_ADDRESSES" {master} {node}'],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout or done.stderr).startswith(said) and bool(done.stderr) == said.startswith("error")


@pytest.mark.parametrize(
    ("settings", "processes", "devices"),
    [
        ({}, 4, "0,1,2,3"),
        ({"NPROC": "2"}, 2, "0,1"),
        ({"GPUS": "1,3"}, 2, "1,3"),
        ({"CUDA_VISIBLE_DEVICES": "2,3"}, 2, "2,3"),
    ],
)
def test_launch_on_gpus(call, tmp_path, settings, processes, devices):
    gpus(tmp_path, 4)
    (tmp_path / "base/bin/installed").write_text("gpu\n")
    call("run_pretrain.sh", **settings)
    made = calls(tmp_path)[-1]
    assert f"--nproc_per_node {processes} " in made and f"--gpus {devices} " in made


def test_more_processes_than_gpus(call, tmp_path):
    gpus(tmp_path, 2)
    (tmp_path / "base/bin/installed").write_text("gpu\n")
    done = call("run_pretrain.sh", NPROC="3")
    assert done.returncode == 2 and "NPROC: found 3, but GPUS=0,1 names 2" in done.stderr


def test_exit_code_of_the_first_step_is_the_scripts(call, tmp_path):
    (tmp_path / "base/bin/installed").write_text("cpu\n")
    assert call("run_pretrain.sh", FAKE_DATA_GEN="2").returncode == 2
    assert [line.split()[2] for line in calls(tmp_path)] == ["ernie2.plan", "data_gen"]


FAILED = "echo 'Container failed !!!'; echo 'Container rank {} status failed cmd [x] code {} log y'; exit {}"
CHILDREN = {
    "done": ("echo step 1 >>$logs/workerlog.0", 0, ["step 1"]),
    "a mistake that another process saw first": (
        "echo 'error: bad key' >$logs/workerlog.1; touch $logs/workerlog.0; " + FAILED.format(1, 2, 241),
        2,
        ["error: bad key"],
    ),
    "a mistake": (
        "echo 'error: bad key' >$logs/workerlog.0; " + FAILED.format(0, 2, 2),
        2,
        ["error: bad key"],
    ),
    "killed": (
        "echo step 1 >>$logs/workerlog.0; " + FAILED.format(0, -9, 247),
        137,
        ["step 1", "process 0", "exit code 137"],
    ),
    "a failure elsewhere": (
        "echo trouble >>$logs/workerlog.1; " + FAILED.format(1, 1, 1),
        1,
        ["trouble", "process 1 of"],
    ),
    "no launch": ("echo no port >&2; exit 1", 1, ["no port", "paddle.distributed.launch failed"]),
}


@pytest.mark.parametrize("case", CHILDREN)
def test_exit_code_and_logs_of_processes(call, tmp_path, case):
    act, code, words = CHILDREN[case]
    (tmp_path / "base/bin/installed").write_text("cpu\n")
    done = call("run_pretrain.sh", NPROC="2", FAKE_LAUNCH=f"touch $logs/backup_env.0.json; {act}")
    assert done.returncode == code
    for word in words:
        assert done.stderr.count(word) == 1, done.stderr
    kept = list(tmp_path.glob("ernie2.*"))
    assert len(kept) == (code not in (0, 2)) and not list(tmp_path.glob("ernie2.*/backup_env*"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_reaches_the_processes_once_and_waits_for_them(start, tmp_path, number, code):
    (tmp_path / "base/bin/installed").write_text("cpu\n")
    act = f"trap 'echo told >>{tmp_path}/told; sleep 0.5; echo saved >>{tmp_path}/told; exit 15' TERM; touch {tmp_path}/up; "
    process = start("run_pretrain.sh", NPROC="2", FAKE_LAUNCH=act + "while :; do sleep 0.1; done")
    deadline = time.monotonic() + 60
    while not (tmp_path / "up").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(timeout=60) == code
    assert (tmp_path / "told").read_text().split() == ["told", "saved"]
