#!/usr/bin/env bash
# Zunair et al. 2021, tuberculosis type from chest CT with video pretraining: Tables 1 and 2.
#   scripts/reproduce_tbt.sh --budget smoke --source phantom        does it run? no data needed
#   scripts/reproduce_tbt.sh --budget quick --source phantom
# Data: UCF50 in $MEDEXP_DATA/ucf50, the ImageCLEF 2021 scans in $MEDEXP_DATA/tbt.
# What has no table (blur, shifts, rotation without 0): medexp train -m paper=tbt_augment.
# Cost on 2 CPU cores, from a measured step of 52 s: full 5 hours an epoch, up to 100 epochs a row: a
# GPU's work. quick: half an hour; smoke: minutes.
exec "$(dirname "${BASH_SOURCE[0]}")/reproduce.sh" tbt tbt_table1 tbt_table2 -- "$@"
