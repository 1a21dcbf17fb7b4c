#!/usr/bin/env bash
# From raw text to a pre-trained ERNIE 2.0: environment, shards, training.
set -euo pipefail

usage() {
  cat <<'TEXT'
bash run_pretrain.sh [RECIPE.yaml] [key=value ...]

  RECIPE.yaml   default tasks/recipes/demo.yaml: a tiny model through every stage, minutes on two CPU cores
  key=value     overrides a key of the recipe: seed=2, out_dir=out/mine, curriculum.steps_per_task=100

Makes the environment (.venv, once; an active one that has all that is needed is used as it is), then the shards
where they are missing, then trains. The same command again goes on from the newest checkpoint in out_dir.
Relative paths are taken from the checkout.

  NPROC=2            processes on this node (default: 1 on a CPU, one a GPU else)
  GPUS=0,1,2,3       GPUs to use (default: all that are visible)
  NNODES=4 NODE_RANK=0 MASTER=host:port
                     clusters: the same command on every node with its own NODE_RANK from 0; MASTER is a free port of
                     node 0 (under srun --ntasks-per-node=1 these three are Slurm's). Node 0 makes the shards; out_dir
                     and data.shards_dir have to be on a disk that all share. Each node is looked over first
                     (python -m ernie2.doctor); before the first step all are compared
  RETRIES=3          after a crash, start again from the newest checkpoint, up to three times (default: 0). Not after a
                     mistake (exit code 2), Ctrl-C or SIGTERM
  ERNIE2_PYTHON=...  use this interpreter as it is
  ERNIE2_DEVICE=cpu  which paddle a new .venv gets: cpu or gpu (default: what nvidia-smi finds)
  ERNIE2_PADDLE_VERSION=2.6
                     paddle 2.6.2, the newest paddlepaddle-gpu on PyPI, in an environment of its own (.venv-paddle2). Default:
                     3, or an active environment's 2.6
  PADDLE_INDEX=URL   where paddlepaddle-gpu is downloaded from (default: Paddle's own index, CUDA by the GPU's generation;
                     PyPI for 2.6)
  OMP_NUM_THREADS=N  threads of a process (default: cores / NPROC)

Exit code: 0, 2 for a mistake in the command, the recipe or the data (one message), 75 where another process of the run
stopped or somebody was missing, 1 for any other failure.
TEXT
}

case "${1:-}" in -h | --help) usage; exit 0 ;; esac
for argument in "$@"; do
  case "$argument" in -*) echo "error: unknown option $argument; see bash run_pretrain.sh --help" >&2; exit 2 ;; esac
done
source "$(dirname "${BASH_SOURCE[0]}")/ernie2/env.sh"

recipe=tasks/recipes/demo.yaml
if [ $# -gt 0 ] && [[ "$1" != *=* ]]; then
  recipe="$(ernie2_path "$1")"
  shift
fi
cd "$ERNIE2_ROOT"
ernie2_environment
ernie2_processes
"$ERNIE2_PYTHON" -m ernie2.plan "$recipe" "$@" --ranks $((NNODES * NPROC)) # a mistake in the recipe shows before anything is made
if [ "$NNODES" != 1 ] || [ -n "${GPUS:-}" ]; then
  NNODES="$NNODES" NODE_RANK="$NODE_RANK" MASTER="$MASTER" NPROC="$NPROC" "$ERNIE2_PYTHON" -m ernie2.doctor "$recipe" "$@"
fi
if [ "$NODE_RANK" = 0 ]; then "$ERNIE2_PYTHON" -m data_gen "$recipe" "$@"; fi # the other nodes wait for it at MASTER
ernie2_train_again ernie2.pretrain "$recipe" "$@"
