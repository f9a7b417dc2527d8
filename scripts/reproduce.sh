#!/usr/bin/env bash
# What the five scripts beside this one share: the tables and figures of one paper, then one page.
#   scripts/reproduce.sh PAPER TABLE... [explain=TABLE/ROW:KIND] [explore=DATASET] --
#       [--budget smoke|quick|full] [--source disk|phantom] [--out DIR] [KEY=VALUE...]
# explain: pictures by `medexp eval` of one row's run; explore: figures by `medexp data explore`.
# A second call with the same options takes what is done, goes on with what was cut short and makes
# again what failed.
set -uo pipefail

paper=$1
shift
tables=() looks=()
while [[ $# -gt 0 && $1 != -- ]]; do
  if [[ $1 == *=* ]]; then looks+=("$1"); else tables+=("$1"); fi
  shift
done
shift

usage() {
  echo "usage: scripts/reproduce_$paper.sh [--budget smoke|quick|full]"
  echo "         [--source disk|phantom] [--out DIR] [KEY=VALUE...]"
  echo "Runs ${tables[*]}; DIR/index.html is the page." | fold -s -w 80
  echo "  --budget   full (default): as the paper; quick: less; smoke: does it run?"
  echo "  --source   disk (default): below \$MEDEXP_DATA, or data/ of the checkout;"
  echo "             phantom: synthetic images in its place, marked PHANTOM everywhere"
  echo "  --out      default: outputs/papers/$paper-BUDGET-SOURCE in the checkout"
  echo "  KEY=VALUE  of every run, as behind medexp train: seed=0,1,2"
}

budget=full source=disk out='' extra=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --budget=* | --source=* | --out=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    --budget | --source | --out)
      [[ $# -gt 1 ]] || { echo "$1: needs a value" >&2; usage >&2; exit 2; }
      declare "${1#--}=$2"
      shift 2
      ;;
    -h | --help) usage; exit 0 ;;
    *=*) extra+=("$1"); shift ;;
    *) echo "$1: no such option" >&2; usage >&2; exit 2 ;;
  esac
done

here=$(pwd)
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[[ -z $out || $out == /* ]] || out=$here/$out
cd "$root" || exit 1
medexp=$(command -v medexp || echo .venv/bin/medexp)
if ! command -v "$medexp" >/dev/null; then
  echo "medexp is not installed: run 'make .venv/.installed' in $root, or activate its environment" >&2
  exit 1
fi
out=${out:-outputs/papers/$paper-$budget-$source}

failed=() folders=()
for table in "${tables[@]}"; do
  echo "== $table: budget $budget, source $source"
  "$medexp" train -m "paper=$table" "paper.budget=$budget" "source=$source" \
    "hydra.sweep.dir=$out/$table" ${extra[@]+"${extra[@]}"}
  code=$?
  [[ $code -ne 130 && $code -ne 2 ]] || exit $code
  [[ $code -eq 0 ]] || failed+=("$table")
  [[ ! -d $out/$table ]] || folders+=("$out/$table")
done

[[ ${#folders[@]} -gt 0 ]] || exit 1
pictures=()
for look in ${looks[@]+"${looks[@]}"}; do
  what=${look#*=}
  if [[ $look == explore=* ]]; then
    small=() # as many phantoms as the tables' smoke budgets take
    [[ $budget != smoke ]] || small=(source.size=80 dataset.size=80)
    # Figures 3 and 4 of the cervix paper: of all pixels, and of their first four components.
    [[ -d $out/data ]] || "$medexp" data explore "dataset=$what" "source=$source" \
      --side 0 --components 4 ${small[@]+"${small[@]}"} --out "$out/data" || failed+=("$look")
    pictures=(--figures "$out/data")
  else
    run=$out/${what%:*}
    if [[ ! -f $run/metrics.json ]]; then
      echo "no ${what#*:} pictures: $run is not done, or its seeds have folders of their own" >&2
    elif [[ ! -d $run/eval ]]; then
      "$medexp" eval "run=$run" "explain=${what#*:}" explain.n=6 || failed+=("$look")
    fi
  fi
done
"$medexp" report "${folders[@]}" --page "$out/index.html" ${pictures[@]+"${pictures[@]}"} || exit 1
if [[ ${#failed[@]} -gt 0 ]]; then
  echo "not all runs are done in: ${failed[*]}; the same command makes them again" >&2
  exit 1
fi
