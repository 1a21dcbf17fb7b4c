#!/usr/bin/env bash
# The test command: bash tests/run.sh [pytest arguments]. Makes the environment first, as run_pretrain.sh does.
# Without arguments: every test, two processes. Quick ones alone: bash tests/run.sh -m "not slow"
# With paddle 2.6, in an environment of its own: ERNIE2_PADDLE_VERSION=2.6 bash tests/run.sh -m core
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../ernie2/env.sh"
cd "$ERNIE2_ROOT"
ernie2_environment test
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 FLAGS_use_mkldnn="${FLAGS_use_mkldnn:-1}" # a file of tests stays in one process
unset NPROC GPUS NNODES NODE_RANK MASTER
exec "$ERNIE2_PYTHON" -m pytest -q -n 2 --dist loadfile --rootdir "$ERNIE2_ROOT" "$@"
