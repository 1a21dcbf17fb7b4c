#!/usr/bin/env bash
# Fine-tunes a checkpoint on one task, tests it, and writes result.json.
set -euo pipefail

usage() {
  cat <<'TEXT'
bash run_finetune.sh TASK.yaml [key=value ...]

  TASK.yaml     one of tasks/finetune/, or your own
  init_from=    checkpoint folder (out/demo/step_...), or none: random weights
  data_dir=     folder of the task's files
  out_dir= repeat= seed= and any key of TASK.yaml

  bash run_finetune.sh tasks/finetune/chnsenticorp.yaml init_from=out/demo/step_0000600 data_dir=data/chnsenticorp repeat=5

Makes the environment first, as run_pretrain.sh does. Relative paths are taken from the checkout. NPROC, GPUS, NNODES,
NODE_RANK, MASTER, ERNIE2_PYTHON, ERNIE2_DEVICE, ERNIE2_PADDLE_VERSION, PADDLE_INDEX, OMP_NUM_THREADS: see
bash run_pretrain.sh --help.

Exit code: 0, 2 for a mistake in the command, the task or the data (one message), 1 for a failure.
TEXT
}

case "${1:-}" in -h | --help) usage; exit 0 ;; esac
if [ $# = 0 ] || [[ "$1" == *=* ]]; then
  echo "error: no TASK.yaml named, for example tasks/finetune/chnsenticorp.yaml; see bash run_finetune.sh --help" >&2
  exit 2
fi
for argument in "$@"; do
  case "$argument" in -*) echo "error: unknown option $argument; see bash run_finetune.sh --help" >&2; exit 2 ;; esac
done
source "$(dirname "${BASH_SOURCE[0]}")/ernie2/env.sh"

task="$(ernie2_path "$1")"
shift
cd "$ERNIE2_ROOT"
ernie2_environment
ernie2_processes
ernie2_train ernie2.finetune "$task" "$@"
