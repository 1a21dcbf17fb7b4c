# Sourced by env.sh: how many processes on which devices, how they are started, and what becomes of it when one stops.
#
#   RETRIES         new starts of a pre-training after a crash
#   ERNIE2_RETRY_PAUSE, ERNIE2_LAUNCH_LIMIT   seconds before a new start; seconds that launchers have to find each other

ernie2_count() { # NAME VALUE LEAST: refuses what is not a whole number of at least LEAST
  [[ "$2" =~ ^[0-9]+$ ]] && [ "$2" -ge "$3" ] || ernie2_mistake "$1: found '$2', expected a whole number, $3 or more"
}

ernie2_nodes() { # settles NNODES, NODE_RANK, MASTER as an address, and HOST: this node's address as MASTER sees it
  if [ -z "${NNODES:-}" ] && [ "${SLURM_STEP_NUM_NODES:-1}" -gt 1 ]; then # srun --ntasks-per-node=1 bash run_pretrain.sh
    [ "$SLURM_STEP_NUM_TASKS" = "$SLURM_STEP_NUM_NODES" ] ||
      ernie2_mistake "srun: $SLURM_STEP_NUM_TASKS tasks on $SLURM_STEP_NUM_NODES nodes; use --ntasks-per-node=1"
    NNODES="$SLURM_STEP_NUM_NODES" NODE_RANK="$SLURM_NODEID"
    MASTER="${MASTER:-$(scontrol show hostnames "$SLURM_STEP_NODELIST" | sed -n 1p):8765}"
  elif [ -z "${NNODES:-}" ] && [ "${OMPI_COMM_WORLD_SIZE:-1}" -gt 1 ]; then # mpirun --map-by ppr:1:node -x MASTER=host:port bash ...
    [ "$OMPI_COMM_WORLD_LOCAL_SIZE" = 1 ] ||
      ernie2_mistake "mpirun: $OMPI_COMM_WORLD_LOCAL_SIZE processes on this node; use --map-by ppr:1:node"
    NNODES="$OMPI_COMM_WORLD_SIZE" NODE_RANK="$OMPI_COMM_WORLD_RANK"
  fi
  NNODES="${NNODES:-1}" NODE_RANK="${NODE_RANK:-0}" MASTER="${MASTER:-}"
  ernie2_count NNODES "$NNODES" 1
  ernie2_count NODE_RANK "$NODE_RANK" 0
  [ "$NODE_RANK" -lt "$NNODES" ] ||
    ernie2_mistake "NODE_RANK: found $NODE_RANK, but NNODES=$NNODES counts from 0 to $((NNODES - 1))"
  [ "$NNODES" != 1 ] || return 0
  [[ "$MASTER" =~ ^[^:]+:[0-9]+$ ]] ||
    ernie2_mistake "MASTER: found '$MASTER'; NNODES=$NNODES needs MASTER=host:port of node 0, the same on every node"
  read -r MASTER HOST <<<"$("$ERNIE2_PYTHON" -c "$ERNIE2_ADDRESSES" "$MASTER" "$NODE_RANK")" || true
  [ -n "${HOST:-}" ] || exit 2
}

# Paddle's launcher takes addresses alone, and node 0 serves only where MASTER is literally its own.
ERNIE2_ADDRESSES='
import socket, sys
host, port = sys.argv[1].split(":")
try:
    master = socket.gethostbyname(host)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((master, int(port)))  # sends nothing: the system says which of its addresses it would use
        mine = probe.getsockname()[0]
except OSError as error:
    sys.exit(f"error: MASTER: {host} is not found from here: {error.strerror}")
if master.startswith("127.") and host != master:
    sys.exit(f"error: MASTER: {host} is {master} here, where no other node reaches it; give the address of node 0")
if sys.argv[2] == "0" and mine != master:
    sys.exit(f"error: MASTER: {host} is {master}, but this node, NODE_RANK=0, is {mine}")
print(f"{master}:{port}", mine)
'

ernie2_processes() { # settles NPROC, GPUS, what ernie2_nodes does, and the threads of a process
  local cores gpus=()
  ernie2_nodes
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
  local child code signal try words pause="${ERNIE2_RETRY_PAUSE:-10}"
  RETRIES="${RETRIES:-0}"
  ernie2_count RETRIES "$RETRIES" 0
  [ "$RETRIES" -gt 0 ] || ernie2_train "$@"
  for ((try = 1; ; try++)); do
    ernie2_start INT ernie2_train "$@"
    ernie2_wait
    case "${signal:+0}$code" in 0* | 2 | 130 | 143) exit "$code" ;; esac # done, asked to stop, or a mistake
    words="training stopped with exit code $code ($(ernie2_meaning "$code"))"
    if [ "$try" -gt "$RETRIES" ]; then
      ernie2_say "error: $words; RETRIES=$RETRIES are used up"
      exit "$code"
    fi
    ernie2_say "$words; in $pause s it starts again from the newest checkpoint: try $try of RETRIES=$RETRIES"
    sleep "$pause" &
    child=$!
    wait "$child" || true
    [ -z "$signal" ] || exit "$code"
  done
}

ernie2_meaning() { # CODE: in words
  case "$1" in
    75) printf 'another process of the run stopped, or somebody was missing' ;;
    137) printf 'killed, perhaps for want of memory' ;;
    *) printf 'see above' ;;
  esac
}

ernie2_start() { # TERM|INT COMMAND...: starts it as `child`, which gets TERM at TERM, and what is named at Ctrl-C
  local at_interrupt="$1"
  code=0 signal="" child=""
  trap 'signal=15; kill -TERM $child 2>/dev/null || true' TERM HUP
  trap "signal=2; kill -$at_interrupt \$child 2>/dev/null || true" INT
  set -m # a process group of its own: Ctrl-C reaches it once, through the trap
  "${@:2}" &
  child=$!
  set +m
  [ -z "$signal" ] || kill -TERM "$child" # it came while the child was being started
}

ernie2_wait() { # for `child`; sets `code`, and `signal` where one came
  wait "$child" || code=$?
  while kill -0 "$child" 2>/dev/null; do # a trapped signal ends `wait` early
    code=0
    wait "$child" || code=$?
  done
}

ernie2_train() { # MODULE ARGUMENT...: trains in NPROC processes on each of NNODES nodes; exits as the training does
  if [ "$NPROC" = 1 ] && [ "$NNODES" = 1 ]; then
    [ -z "${GPUS:-}" ] || export CUDA_VISIBLE_DEVICES="$GPUS"
    exec "$ERNIE2_PYTHON" -m "$@"
  fi
  ernie2_launch "$@"
}

ernie2_launch() { # MODULE ARGUMENT...: paddle.distributed.launch, with the first process's log on the terminal
  local logs child code signal follower guard options
  logs="$(mktemp -d "${TMPDIR:-/tmp}/ernie2.XXXXXX")" # private: the launcher writes the whole environment beside the logs
  options=(--nnodes "$NNODES" --nproc_per_node "$NPROC" --log_dir "$logs" --log_level ERROR)
  if [ "$NNODES" -gt 1 ]; then options+=(--master "$MASTER" --rank "$NODE_RANK" --host "$HOST" --job_id "NNODES=$NNODES"); fi
  if [ -n "${GPUS:-}" ]; then options+=(--gpus "$GPUS"); else unset CUDA_VISIBLE_DEVICES; fi # CPU processes talk over gloo
  ernie2_say "starting $NPROC processes${GPUS:+ on GPUs $GPUS} on node $NODE_RANK of $NNODES (their logs: $logs)"

  ernie2_start TERM "$ERNIE2_PYTHON" -m paddle.distributed.launch "${options[@]}" "$ERNIE2_PYTHON" -u -m "$@" \
    >"$logs/launcher.log" 2>&1
  tail --pid="$child" -s 0.2 -n +1 -F "$logs/workerlog.0" >&2 2>/dev/null &
  follower=$!
  ernie2_guard "$logs" "$child" &
  guard=$!
  ernie2_wait
  wait "$follower" "$guard" 2>/dev/null || true
  trap - TERM HUP INT
  rm -f "$logs"/backup_env.* "$logs"/envlog.* "$logs"/default.* "$logs"/NNODES=*
  if [ -n "$signal" ]; then code=$((128 + signal)); elif [ "$code" != 0 ]; then ernie2_failed "$logs" "$code" || code=$?; fi
  case "$code" in 0 | 2 | 130 | 143) rm -rf "$logs" ;; esac
  exit "$code"
}

ernie2_guard() { # LOGS LAUNCHER: ends a launcher that starts no process in time because other nodes do not come, and names them
  local waited limit came="" # node 0 may have to make shards before it comes; it itself waits for nothing
  limit="${ERNIE2_LAUNCH_LIMIT:-$((NODE_RANK ? 3600 : 600))}"
  for ((waited = 1; waited <= limit * 2; waited++)); do
    ! [ -e "$1/workerlog.0" ] && kill -0 "$2" 2>/dev/null || return 0
    if grep -qs "$ERNIE2_TWINS" "$1/launcher.log"; then # node 0's would go on serving the others
      kill -TERM "$2"
      return
    fi
    ((waited % 20)) || came="$(ernie2_came)"
    if [[ "$came" == *NNODES* ]]; then
      ernie2_say "error: NNODES: node $NODE_RANK has $NNODES, but at MASTER=$MASTER there is node $came; give all the same"
      touch "$1/unlike"
      [ "$NODE_RANK" != 0 ] || sleep 15 # the others ask its store
      kill -TERM "$2"
      return
    fi
    ((waited % 120)) || ernie2_say "waiting for the other nodes at MASTER=$MASTER (node 0 makes missing shards first)"
    sleep 0.5
  done
  touch "$1/late"
  came="$(ernie2_came)"
  kill -TERM "$2"
  ernie2_say "error: node $NODE_RANK of $NNODES: after $limit s (ERNIE2_LAUNCH_LIMIT) these have not come to MASTER=$MASTER:" \
    "node ${came:-none}; see their terminals, and on them: python -m ernie2.doctor"
}

ERNIE2_TWINS='must be str.*not NoneType' # what Paddle's launcher says where two nodes have one NODE_RANK

ernie2_came() { # which nodes have not come to MASTER, or have another NNODES: the keys of its store are /NNODES=2/info/.../NODE_RANK
  "$ERNIE2_PYTHON" -c '
import json, sys, urllib.request
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
keys = json.load(direct.open(f"http://{sys.argv[1]}/", timeout=5))
came = {key.rpartition("/")[2]: key.split("/")[1] for key in keys if "/info/" in key}
unlike = [f"{node} with {job}" for node, job in came.items() if job != f"NNODES={sys.argv[2]}"]
print(*unlike or (node for node in range(int(sys.argv[2])) if str(node) not in came), sep=", ")
' "$MASTER" "$NNODES" 2>/dev/null || printf '0, which does not answer'
}

ernie2_failed() { # LOGS CODE: says which process failed first; returns its exit code (the launcher's own may be a victim's)
  local rank="" code=""
  [ ! -e "$1/unlike" ] || return 2
  [ ! -e "$1/late" ] || return 75
  read -r rank code <<<"$(
    sed -n 's/^Container rank \([0-9]*\) status failed .* code \(-\{0,1\}[0-9]*\) log .*/\1 \2/p' "$1/launcher.log" | sed -n 1p
  )"
  if [ -z "$code" ]; then
    tail -n 20 "$1/launcher.log" >&2
    ! grep -q "$ERNIE2_TWINS" "$1/launcher.log" || ernie2_mistake "NODE_RANK: two nodes have the same one"
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
  else
    ernie2_say "error: process $rank of this node failed first, with exit code $code; logs of all: $1"
  fi
  return "$code"
}
