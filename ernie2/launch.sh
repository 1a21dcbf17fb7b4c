# Sourced by env.sh: how many processes on which devices, how they are started, and what becomes of it when one stops.
#
#   RETRIES         new starts of a pre-training after a crash
#   ERNIE2_RETRY_PAUSE, ERNIE2_LAUNCH_LIMIT   seconds before a new start; seconds that launchers have to find each other

ernie2_count() { # NAME VALUE LEAST: refuses what is not a whole number of at least LEAST
  [[ "$2" =~ ^[0-9]+$ ]] && [ "$2" -ge "$3" ] || ernie2_mistake "$1: found '$2', expected a whole number, $3 or more"
}

ernie2_processes() { # settles NPROC, GPUS, NNODES, NODE_RANK, MASTER and the threads of a process
  local cores gpus=()
  NNODES="${NNODES:-1}" NODE_RANK="${NODE_RANK:-0}" MASTER="${MASTER:-}"
  ernie2_count NNODES "$NNODES" 1
  ernie2_count NODE_RANK "$NODE_RANK" 0
  [ "$NODE_RANK" -lt "$NNODES" ] ||
    ernie2_mistake "NODE_RANK: found $NODE_RANK, but NNODES=$NNODES counts from 0 to $((NNODES - 1))"
  [ "$NNODES" = 1 ] || [[ "$MASTER" =~ ^[^:]+:[0-9]+$ ]] ||
    ernie2_mistake "MASTER: found '$MASTER'; NNODES=$NNODES needs MASTER=host:port of node 0, the same on every node"

  if [ "$ERNIE2_PADDLE" = gpu ] && ernie2_has_gpu && [[ ! "${CUDA_VISIBLE_DEVICES-all}" =~ ^(-1)?$ ]]; then
    GPUS="${GPUS:-${CUDA_VISIBLE_DEVICES:-$(nvidia-smi -L | grep '^GPU' | awk '{print NR - 1}' | paste -sd, -)}}"
    IFS=, read -ra gpus <<<"$GPUS"
    NPROC="${NPROC:-${#gpus[@]}}"
    ernie2_count NPROC "$NPROC" 1
    [ "$NPROC" -le "${#gpus[@]}" ] ||
      ernie2_mistake "NPROC: found $NPROC, but GPUS=$GPUS names ${#gpus[@]}; one process takes one GPU"
    GPUS="$(IFS=,; printf '%s' "${gpus[*]:0:NPROC}")"
  else
    [ -z "${GPUS:-}" ] || ernie2_mistake "GPUS: found '$GPUS', but there is no GPU that the paddle of $ERNIE2_PYTHON could use"
    NPROC="${NPROC:-1}"
    ernie2_count NPROC "$NPROC" 1
  fi

  cores="$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)"
  export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((cores > NPROC ? cores / NPROC : 1))}"
  export MKL_NUM_THREADS="${MKL_NUM_THREADS:-$OMP_NUM_THREADS}"
  export FLAGS_use_mkldnn="${FLAGS_use_mkldnn:-1}"
  export GLOG_minloglevel="${GLOG_minloglevel:-1}" # paddle's C++ part: warnings and errors
}

ernie2_train_again() { # MODULE ARGUMENT...: as ernie2_train; after a crash from the newest checkpoint again, RETRIES times
  local child code signal="" try=0 pause="${ERNIE2_RETRY_PAUSE:-10}"
  RETRIES="${RETRIES:-0}"
  ernie2_count RETRIES "$RETRIES" 0
  [ "$RETRIES" -gt 0 ] || ernie2_train "$@"
  trap 'signal=TERM; kill -TERM $child 2>/dev/null || true' TERM HUP
  trap 'signal=INT; kill -INT $child 2>/dev/null || true' INT
  while :; do
    set -m # a process group of its own: Ctrl-C reaches it once, through the trap
    (ernie2_train "$@") &
    child=$!
    set +m
    while :; do # a trapped signal ends `wait` early
      code=0
      wait "$child" || code=$?
      kill -0 "$child" 2>/dev/null || break
    done
    case "${signal:+0}$code" in 0* | 2 | 130 | 143) exit "$code" ;; esac # done, asked to stop, or a mistake
    try=$((try + 1))
    if [ "$try" -gt "$RETRIES" ]; then
      ernie2_say "error: training stopped with exit code $code ($(ernie2_meaning "$code")); RETRIES=$RETRIES are used up"
      exit "$code"
    fi
    ernie2_say "training stopped with exit code $code ($(ernie2_meaning "$code")); in $pause s it starts again from the newest" \
      "checkpoint: try $try of RETRIES=$RETRIES"
    sleep "$pause" &
    child=$!
    wait "$child" || true
    [ -z "$signal" ] || exit "$code"
  done
}

ernie2_meaning() { # CODE: in words
  case "$1" in
    1) printf 'a failure; its message stands above' ;;
    75) printf 'another process of the run stopped, or somebody was missing' ;;
    134) printf 'aborted' ;;
    137) printf 'killed, perhaps for want of memory' ;;
    139) printf 'segmentation fault' ;;
    *) printf 'see above' ;;
  esac
}

ernie2_train() { # MODULE ARGUMENT...: trains in NPROC processes on each of NNODES nodes; exits as the training does
  if [ "$NPROC" = 1 ] && [ "$NNODES" = 1 ]; then
    [ -z "${GPUS:-}" ] || export CUDA_VISIBLE_DEVICES="$GPUS"
    exec "$ERNIE2_PYTHON" -m "$@"
  fi
  ernie2_launch "$@"
}

ernie2_launch() { # MODULE ARGUMENT...: paddle.distributed.launch, with the first process's log on the terminal
  local logs launcher="" follower guard code=0 signal="" options
  logs="$(mktemp -d "${TMPDIR:-/tmp}/ernie2.XXXXXX")" # private: the launcher writes the whole environment beside the logs
  options=(--nnodes "$NNODES" --nproc_per_node "$NPROC" --log_dir "$logs" --log_level ERROR)
  if [ "$NNODES" -gt 1 ]; then options+=(--master "$MASTER" --rank "$NODE_RANK"); fi
  if [ -n "${GPUS:-}" ]; then options+=(--gpus "$GPUS"); else unset CUDA_VISIBLE_DEVICES; fi # CPU processes talk over gloo
  ernie2_say "starting $NPROC processes${GPUS:+ on GPUs $GPUS} on node $NODE_RANK of $NNODES (their logs: $logs)"

  trap 'signal=15; kill -TERM $launcher 2>/dev/null || true' TERM HUP
  trap 'signal=2; kill -TERM $launcher 2>/dev/null || true' INT
  set -m # a process group of its own: Ctrl-C reaches the launcher once, through the trap
  "$ERNIE2_PYTHON" -m paddle.distributed.launch "${options[@]}" "$ERNIE2_PYTHON" -u -m "$@" >"$logs/launcher.log" 2>&1 &
  launcher=$!
  [ -z "$signal" ] || kill -TERM "$launcher" # it came while the launcher was being started
  tail --pid="$launcher" -s 0.2 -n +1 -F "$logs/workerlog.0" >&2 2>/dev/null &
  follower=$!
  ernie2_guard "$logs" "$launcher" &
  guard=$!
  set +m
  wait "$launcher" || code=$?
  while kill -0 "$launcher" 2>/dev/null; do wait "$launcher" || code=$?; done # a trapped signal ends `wait` early
  wait "$follower" 2>/dev/null || true
  wait "$guard" 2>/dev/null || true
  trap - TERM HUP INT
  rm -f "$logs"/backup_env.* "$logs"/envlog.* "$logs"/default.*
  if [ -n "$signal" ]; then code=$((128 + signal)); elif [ "$code" != 0 ]; then ernie2_failed "$logs" "$code" || code=$?; fi
  case "$code" in 0 | 2 | 130 | 143) rm -rf "$logs" ;; esac
  exit "$code"
}

ERNIE2_LAUNCH_LIMIT="${ERNIE2_LAUNCH_LIMIT:-600}"

ernie2_guard() { # LOGS LAUNCHER: ends a launcher that starts no process in time, because other nodes do not come
  local waited
  for ((waited = 0; waited < ERNIE2_LAUNCH_LIMIT * 2; waited++)); do
    ! [ -e "$1/workerlog.0" ] && kill -0 "$2" 2>/dev/null || return 0
    sleep 0.5
  done
  ernie2_say "error: node $NODE_RANK of $NNODES: the launchers of all nodes did not find each other at MASTER=$MASTER within" \
    "$ERNIE2_LAUNCH_LIMIT s; see the terminals of the other nodes, and: python -m ernie2.doctor"
  touch "$1/late"
  kill -TERM "$2"
}

ernie2_failed() { # LOGS CODE: says which process failed first; returns its exit code (the launcher's own may be a victim's)
  local rank="" code=""
  [ ! -e "$1/late" ] || return 75
  read -r rank code <<<"$(
    sed -n 's/^Container rank \([0-9]*\) status failed .* code \(-\{0,1\}[0-9]*\) log .*/\1 \2/p' "$1/launcher.log" | sed -n 1p
  )"
  if [ -z "$code" ]; then
    tail -n 20 "$1/launcher.log" >&2
    ernie2_say "error: paddle.distributed.launch failed with exit code $2; its log: $1/launcher.log"
    return "$2"
  fi
  if [ "$code" -lt 0 ]; then code=$((128 - code)); fi
  # Often all see the same mistake; the first process's message has been on the terminal.
  if [ "$rank" != 0 ] && [ "$code" = 2 ] && ! grep -q '^error:' "$1/workerlog.0"; then
    sed -n '/^error:/,$p' "$1/workerlog.$rank" >&2
  fi
  if [ "$code" = 2 ]; then return 2; fi
  if [ "$rank" != 0 ]; then tail -n 20 "$1/workerlog.$rank" >&2; fi
  if [ "$code" = 75 ]; then
    ernie2_say "error: this node stopped because a process elsewhere did, or did not come; logs of all: $1"
    return 75
  fi
  ernie2_say "error: process $rank of this node failed first, with exit code $code; logs of all: $1"
  return "$code"
}
