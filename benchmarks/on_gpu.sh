#!/usr/bin/env bash
# All that medexp has to show on a GPU, in one call of at most 9 minutes: benchmarks/on_gpu.md.
#
#   OUT=DIR benchmarks/on_gpu.sh [--small] [STEP...]
#
# --small: the rehearsal, on a CPU with small sizes. STEP: some steps only, by their names below.
# Each has a time limit of its own, and one that fails or is ended does not stop the next. Their
# figures, a log, a profile and the table are written to $OUT (4 files); the table is printed last.
set -u -o pipefail

if [[ ${1:-} == --small ]]; then
    export SMALL=1
    shift
fi
only=" $* "
python=${PYTHON:-python3}
# Seconds in all, and how much slower a rehearsal may be than a step's limit on a GPU.
budget=${BUDGET:-$([[ -z ${SMALL:-} ]] && echo 525 || echo 1800)} slower=${SMALL:+6}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SMALL:-8}} # 1 in a rehearsal, beside others' work
export OUT=${OUT:?names the folder of the results}
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
cd "$(dirname "$0")/.."
root=$(pwd)

# In memory where there is room for PCam's pixels: a disk would be measured else.
room=$(df --output=avail -B1G /dev/shm 2>/dev/null | tail -1)
place=$([[ ${room:-0} -ge 24 && -z ${SMALL:-} ]] && echo /dev/shm || echo "${TMPDIR:-/tmp}")
WORK=$(mktemp -d -p "$place")
site=$(mktemp -d) # not in memory: nothing may be run from there, shared libraries neither
trap 'rm -rf "$WORK" "$site"' EXIT
export WORK MEDEXP_CACHE=$WORK/cache PYTHONUNBUFFERED=1 COLUMNS=100
export PYTHONPATH=$root:$site${PYTHONPATH:+:$PYTHONPATH}

lacks='import hydra, omegaconf, nibabel, imagehash, pywt'
"$python" -c "$lacks" 2>/dev/null || "$python" -m pip install -q --disable-pip-version-check \
    --no-index --no-deps --no-compile --no-cache-dir --target "$site" .whl/*.whl
"$python" -c "$lacks" || {
    echo "Packages are missing: run benchmarks/on_gpu/wheels.sh where pip works, carry .whl" >&2
    exit 1
}

# note STEP TEXT: a figure of the script itself.
note() {
    printf '{"step": "%s", "what": "step", "value": "%s"}\n' "$1" "$2" >>"$OUT/figures.jsonl"
    printf '%4d s  %-10s %s\n' "$SECONDS" "$1" "$2"
}

# step NAME SECONDS MODULE [ARGUMENT...]: run a module of benchmarks/on_gpu, for so long at most.
step() {
    local name=$1 limit=$(($2 * ${slower:-1})) module=$3 began=$SECONDS left=$((budget - SECONDS)) status
    shift 3
    [[ $only == "  " || $only == *" $name "* ]] || return 0
    ((limit > left)) && limit=$left
    if ((limit < 10)); then
        note "$name" "left out: the time was over"
        return 0
    fi
    printf '\n==== %s\n' "$name" >>"$OUT/log.txt"
    timeout -k 5 "$limit" "$python" -m "benchmarks.on_gpu.$module" "$@" >>"$OUT/log.txt" 2>&1
    status=$?
    case $status in
    0) note "$name" "done in $((SECONDS - began)) s" ;;
    124 | 137) note "$name" "ended by its limit of $limit s" ;;
    *) note "$name" "failed with status $status, see log.txt" ;;
    esac
}

step ceilings 45 ceilings
step tests 110 gpu_tests
step phantom 60 phantom
step pcam 90 pcam medexp
step peers 60 pcam peers
step streams 45 jobs streams
step stacked 45 jobs stacked
step networks 65 nets
step profile 40 pcam profile
step accuracy 70 accuracy
step processes 60 jobs processes
step kernels 30 nets profile

"$python" -m benchmarks.on_gpu.table "$OUT/figures.jsonl" | tee "$OUT/table.md"
