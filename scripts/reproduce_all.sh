#!/usr/bin/env bash
# All five papers, one after another; takes the options of the five scripts beside it.
#   scripts/reproduce_all.sh --budget smoke --source phantom        about half an hour on 2 cores
# Ends with 0 if every paper did; a paper that fails does not stop the others.
here=$(dirname "${BASH_SOURCE[0]}")
for argument in "$@"; do
  case $argument in
    --out | --out=*) echo "--out: of one paper; leave it out here" >&2; exit 2 ;;
    -h | --help)
      echo "usage: scripts/reproduce_all.sh [--budget smoke|quick|full]"
      echo "         [--source disk|phantom] [KEY=VALUE...]"
      echo "All five papers, as scripts/reproduce_PAPER.sh --help says of each."
      exit 0
      ;;
  esac
done
failed=()
for paper in ldct cervix leukaemia tbt pcam; do
  "$here/reproduce_$paper.sh" "$@"
  code=$?
  [[ $code -ne 130 && $code -ne 2 ]] || exit $code
  [[ $code -eq 0 ]] || failed+=("$paper")
done
[[ ${#failed[@]} -eq 0 ]] || { echo "not all done: ${failed[*]}" >&2; exit 1; }
