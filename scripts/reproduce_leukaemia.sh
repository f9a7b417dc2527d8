#!/usr/bin/env bash
# Mir and Nissa 2019, leukaemia from single-cell images (dataset=all): Table 2,
# Figures 22 and 23.
#   scripts/reproduce_leukaemia.sh --budget smoke --source phantom  does it run? no data needed
#   scripts/reproduce_leukaemia.sh dataset.split=patients           without the paper's leak
# Data: fold_0, fold_1, fold_2 of C-NMC 2019 in $MEDEXP_DATA/all.
# What has no table (the other optimizers): medexp train -m paper=all_optimizers.
# Cost on 2 CPU cores, from measured steps: full 356 hours, a GPU's work; quick half an hour; smoke
# minutes.
exec "$(dirname "${BASH_SOURCE[0]}")/reproduce.sh" leukaemia all_table2 \
  explain=all_table2/Proposed-Model:features -- "$@"
