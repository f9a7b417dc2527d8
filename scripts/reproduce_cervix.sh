#!/usr/bin/env bash
# Nguyen et al. 2017, cervix type from colposcopy photographs: Tables 2 to 5, Figures 3 to 7
# and 11 to 17.
#   scripts/reproduce_cervix.sh --budget smoke --source phantom     does it run? no data needed
#   scripts/reproduce_cervix.sh --budget quick seed=0,1,2
# Data: the folders Type_1, Type_2, Type_3 in $MEDEXP_DATA/cervix. ImageNet weights for ResNet are
# downloaded; those of Inception v2 must be given (conf/recipe/cervix_inception.yaml).
# What has no table (BatchNorm, the last layer alone): medexp train -m paper=cervix_ablation; the
# tuning of the two own networks: medexp train -m tune=cervixnet1, tune=cervixnet2.
# Cost on 2 CPU cores, from measured steps: full about 8 hours; quick an hour; smoke minutes.
exec "$(dirname "${BASH_SOURCE[0]}")/reproduce.sh" cervix \
  cervix_table2 cervix_table3 cervix_table4 cervix_table5 \
  explain=cervix_table5/CervixNet-1:saliency explore=cervix -- "$@"
