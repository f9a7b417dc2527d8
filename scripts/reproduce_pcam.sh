#!/usr/bin/env bash
# Johny et al. 2021, native CNNs on PatchCamelyon: Tables 3 and 4, Figures 3 to 9.
#   scripts/reproduce_pcam.sh --budget smoke --source phantom       does it run? no data needed
#   scripts/reproduce_pcam.sh --budget quick seed=0,1,2
# Data: PCam's HDF5 files in $MEDEXP_DATA/pcam (7 GB).
# What has no table (pooling by strides of 1 and 2): medexp train -m paper=pcam_pooling.
# Cost on 2 CPU cores, from measured steps: Table 4 in full 135 hours (1,000 epochs of each network),
# Table 3 half of that, the figures days: a GPU's work. quick: about two hours. smoke: minutes.
exec "$(dirname "${BASH_SOURCE[0]}")/reproduce.sh" pcam \
  pcam_table3 pcam_table4 pcam_fig3 pcam_fig6 -- "$@"
