# Sourced by run_pretrain.sh, run_finetune.sh and tests/run.sh: which Python; launch.sh beside it: in how many processes.
# They stand beside cpu.py and distributed.py: what has to be settled before paddle is imported.
#
#   ERNIE2_PYTHON          this interpreter, as it is
#   ERNIE2_DEVICE          cpu or gpu: which paddle a new .venv gets (default: gpu where nvidia-smi finds one)
#   ERNIE2_PADDLE_VERSION  3 or 2.6: this paddle and no other; a new .venv gets 3, a new .venv-paddle2 gets 2.6
#   PADDLE_INDEX           where paddlepaddle-gpu comes from (default: 3 from Paddle's own index, CUDA version by the GPU's
#                          generation; where that index does not answer, 2.6 from PyPI with CUDA 11.8 from PyPI)

ERNIE2_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
PADDLE_PACKAGES=https://www.paddlepaddle.org.cn/packages/stable

# What setup.py's install_requires, its extra `cpu` and its extra `test` are imported as.
ERNIE2_MODULES="paddle paddlenlp numpy yaml pydantic tqdm jinja2 matplotlib rich sklearn scipy jieba opencc rjieba tokenizers safetensors joblib visualdl aistudio_sdk datasets pyarrow"
ERNIE2_TEST_MODULES="pytest xdist ruff ray httpx zstandard fastapi uvicorn prometheus_client paddle2onnx onnxruntime"

source "$ERNIE2_ROOT/ernie2/launch.sh"

ernie2_say() { printf '%s\n' "$*" >&2; }

ernie2_mistake() { # MESSAGE: a user's mistake
  ernie2_say "error: $*"
  exit 2
}

ernie2_path() { # FILE as typed, in whatever folder the user stands -> FILE as seen from the checkout
  if [ "$PWD" != "$ERNIE2_ROOT" ] && [ -e "$PWD/$1" ]; then printf '%s/%s' "$PWD" "$1"; else printf '%s' "$1"; fi
}

ernie2_paddle_version() { # sets what a new environment is made of: ERNIE2_VENV, ERNIE2_PINS, and which of setup.py's extras
  case "${ERNIE2_PADDLE_VERSION:-}" in
    "" | 3) ERNIE2_VENV="$ERNIE2_ROOT/.venv" ERNIE2_PINS=constraints.txt ERNIE2_EXTRA="" ;;
    2.6) ERNIE2_VENV="$ERNIE2_ROOT/.venv-paddle2" ERNIE2_PINS=constraints-paddle2.txt ERNIE2_EXTRA=2 ;;
    *) ernie2_mistake "ERNIE2_PADDLE_VERSION: found '$ERNIE2_PADDLE_VERSION', expected 3 or 2.6" ;;
  esac
}

ernie2_environment() { # [test]: sets ERNIE2_PYTHON (and ERNIE2_PADDLE: cpu or gpu); makes .venv where nothing else fits
  local modules="$ERNIE2_MODULES" active="" kept=""
  ernie2_paddle_version
  [ "${1:-}" != test ] || modules="$modules $ERNIE2_TEST_MODULES"
  export PYTHONPATH="$ERNIE2_ROOT${PYTHONPATH:+:$PYTHONPATH}"
  export PYTHONWARNINGS="${PYTHONWARNINGS:-ignore:No ccache found}" # paddle says so at each import

  if [ -n "${ERNIE2_PYTHON:-}" ]; then
    ERNIE2_PADDLE="$("$ERNIE2_PYTHON" -c "$ERNIE2_PROBE" paddle)" ||
      ernie2_mistake "ERNIE2_PYTHON: $ERNIE2_PYTHON has no paddle that fits; name another interpreter or unset ERNIE2_PYTHON"
    return
  fi
  if [ "${VIRTUAL_ENV:-}" = "$ERNIE2_VENV" ]; then # .venv itself, activated: it is judged by its mark, and may be made again
    unset VIRTUAL_ENV
    PATH="${PATH//"$ERNIE2_VENV/bin:"/}"
  fi
  ERNIE2_DEVICE="$(ernie2_device)"
  kept="$(ernie2_kept)"
  for active in "${VIRTUAL_ENV:+$VIRTUAL_ENV/bin/python}" "${CONDA_PREFIX:+$CONDA_PREFIX/bin/python}" python3; do
    # A finished .venv is there because plain python3 did not do.
    [ -n "$active" ] && { [ "$active" != python3 ] || [ -z "$kept" ]; } || continue
    if ERNIE2_PADDLE="$("$active" -c "$ERNIE2_PROBE" $modules 2>/dev/null)"; then
      ERNIE2_PYTHON="$(command -v "$active")"
      ernie2_say "environment: $ERNIE2_PYTHON, which has all that is needed, as it is"
      [ "$ERNIE2_PADDLE" = gpu ] || ! ernie2_has_gpu || ernie2_say "  its paddle computes on the CPU, though this machine has a GPU"
      return
    fi
    [ "$active" = python3 ] ||
      ernie2_say "environment: $active lacks what is needed ($("$active" -c "$ERNIE2_PROBE" $modules 2>&1 >/dev/null | tail -n 1))"
  done
  if [ -z "$kept" ] && ! ernie2_index_answers; then
    [[ "$(ernie2_index)" == *cu118/ ]] ||
      ernie2_mistake "$(ernie2_index) does not answer, and PyPI has no paddle compiled for this GPU; PADDLE_INDEX=URL names a mirror"
    ernie2_say "environment: $(ernie2_index) does not answer: paddle 2.6 and CUDA 11.8 from PyPI instead"
    export ERNIE2_PADDLE_VERSION=2.6
    ernie2_paddle_version
    kept="$(ernie2_kept)"
  fi
  [ -n "$kept" ] || ernie2_make_venv
  ERNIE2_PYTHON="$ERNIE2_VENV/bin/python"
  ERNIE2_PADDLE="$(cut -d ' ' -f 2 "$ERNIE2_VENV/.complete")"
}

# Given module names: prints cpu or gpu, what paddle was built for; or fails and says what is missing or of another version.
ERNIE2_PROBE='
import importlib.util, os, sys, warnings
warnings.simplefilter("ignore")
if not (3, 10) <= sys.version_info[:2]:
    sys.exit("Python %d.%d is older than 3.10" % sys.version_info[:2])
missing = [name for name in sys.argv[1:] if importlib.util.find_spec(name) is None]
if missing:
    sys.exit("no " + ", ".join(missing))
import ernie2.paddle_version as tested, paddle
wanted = os.environ.get("ERNIE2_PADDLE_VERSION")
if wanted and not paddle.__version__.startswith(wanted + "."):
    sys.exit("paddle %s, but ERNIE2_PADDLE_VERSION=%s" % (paddle.__version__, wanted))
try:
    tested.check(paddle.__version__)
except ImportError as error:
    sys.exit(str(error))
print("gpu" if paddle.is_compiled_with_cuda() else "cpu")
'

ernie2_digest() { # of what an environment is made by
  cat "$ERNIE2_ROOT/$ERNIE2_PINS" "$ERNIE2_ROOT/setup.py" | { sha256sum 2>/dev/null || shasum -a 256; } | cut -d ' ' -f 1
}

ernie2_kept() { # prints the device of an environment that is whole and up to date, else nothing
  local digest="" device=""
  [ -x "$ERNIE2_VENV/bin/python" ] && [ -f "$ERNIE2_VENV/.complete" ] || return 0
  read -r digest device <"$ERNIE2_VENV/.complete" || return 0
  [ "$digest" = "$(ernie2_digest)" ] || return 0
  # A GPU paddle computes on a CPU too; the reverse is a machine that got a GPU, or a disk shared with one.
  [ "$device" = gpu ] || [ "$ERNIE2_DEVICE" = cpu ] || return 0
  printf '%s' "$device"
}

ernie2_has_gpu() { [[ "$(nvidia-smi -L 2>/dev/null)" == GPU* ]]; }

ernie2_device() {
  case "${ERNIE2_DEVICE:-}" in
    cpu | gpu) printf '%s' "$ERNIE2_DEVICE" ;;
    "") if ernie2_has_gpu; then printf gpu; else printf cpu; fi ;;
    *) ernie2_mistake "ERNIE2_DEVICE: found '$ERNIE2_DEVICE', expected cpu or gpu" ;;
  esac
}

ernie2_index() { # the folder of Paddle's index whose wheels were compiled for this GPU; nothing where PyPI's will do
  local generation
  [ "${ERNIE2_PADDLE_VERSION:-}" != 2.6 ] || return 0
  generation="$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | sort -n | sed -n 1p)" || true
  case "${generation%%.*}" in
    9) printf '%s/cu126/' "$PADDLE_PACKAGES" ;;
    1[0-9]) printf '%s/cu129/' "$PADDLE_PACKAGES" ;;
    *) printf '%s/cu118/' "$PADDLE_PACKAGES" ;; # V100 (7.0) and others up to 8.x; drivers too old to say
  esac
}

ernie2_index_answers() { # whether Paddle's own index does, where paddle 3 for a GPU has to come from it
  [ "$ERNIE2_DEVICE" = gpu ] && [ -z "${ERNIE2_PADDLE_VERSION:-}${PADDLE_INDEX:-}" ] || return 0
  "$(ernie2_base_python)" -c 'import sys, urllib.request as web; web.urlopen(sys.argv[1], timeout=10)' \
    "$(ernie2_index)paddlepaddle-gpu/" >/dev/null 2>&1
}

ernie2_link_cuda() { # PYTHON: puts the CUDA libraries of NVIDIA's packages where paddle 2.6 looks: beside its own, bare names too
  local packages library name
  packages="$("$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
  for library in "$packages"/nvidia/*/lib/lib*.so*; do
    name="${library##*/}"
    ln -sf "$library" "$packages/paddle/libs/$name"
    ln -sf "$library" "$packages/paddle/libs/${name%%.so*}.so"
  done
}

ernie2_base_python() { # prints a Python that setup.py allows
  local name
  for name in python3 python3.12 python3.11 python3.10 python; do
    if "$name" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 13))' >/dev/null 2>&1; then
      command -v "$name"
      return
    fi
  done
  ernie2_mistake "no Python 3.10, 3.11 or 3.12 on PATH; install one, or name it with ERNIE2_PYTHON=/path/to/python"
}

ernie2_make_venv() { # a new environment; .complete is written last, so one that was cut short is seen and made again
  local base device="$ERNIE2_DEVICE" name="${ERNIE2_VENV##*/}" index="" where=() quiet=-q
  base="$(ernie2_base_python)"
  mkdir -p "$ERNIE2_VENV"
  if command -v flock >/dev/null; then # two runs started together make one environment
    exec 9>"$ERNIE2_VENV/.lock"
    flock 9
    if [ -n "$(ernie2_kept)" ]; then
      exec 9>&-
      return
    fi
  fi
  [ ! -e "$ERNIE2_VENV/bin" ] || ernie2_say "environment: $name is unfinished or out of date; making it again"
  find "$ERNIE2_VENV/" -mindepth 1 -maxdepth 1 ! -name .lock -exec rm -rf {} +
  if [ "$device" = gpu ]; then index="${PADDLE_INDEX:-$(ernie2_index)}"; fi
  if [ -n "$index" ]; then where=(--extra-index-url "$index"); fi
  ernie2_say "environment: making $name with $base (once; some minutes, 2 GB of disk, 8 with a GPU)"
  ernie2_say "  paddle ${ERNIE2_PADDLE_VERSION:-3} for the ${device^^}${index:+ from $index}"
  "$base" -m venv "$ERNIE2_VENV" >&2 || ernie2_mistake "'$base -m venv' failed. On Debian and Ubuntu: apt-get install python3-venv"
  [ ! -t 2 ] || quiet="" # on a terminal pip shows its progress
  (cd "$ERNIE2_ROOT" && "$ERNIE2_VENV/bin/python" -m pip install $quiet --disable-pip-version-check -c "$ERNIE2_PINS" \
    -e ".[$device$ERNIE2_EXTRA,test]" ${where[@]+"${where[@]}"} >&2) || {
    ernie2_say "error: pip could not install what setup.py and $ERNIE2_PINS name; its message stands above"
    [ "$device" = cpu ] ||
      ernie2_say "  another build of paddle: PADDLE_INDEX=$PADDLE_PACKAGES/cuXYZ/, ERNIE2_PADDLE_VERSION=2.6, or ERNIE2_DEVICE=cpu"
    exit 1
  }
  [ "$device$ERNIE2_EXTRA" != gpu2 ] || ernie2_link_cuda "$ERNIE2_VENV/bin/python"
  printf '%s %s\n' "$(ernie2_digest)" "$device" >"$ERNIE2_VENV/.complete"
  exec 9>&-
  ernie2_say "environment: $name is ready"
}
