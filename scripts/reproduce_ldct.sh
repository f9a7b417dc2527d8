#!/usr/bin/env bash
# Alghamdi et al. 2021, lung cancer from LDCT slices: Tables 1 and 2.
#   scripts/reproduce_ldct.sh --budget smoke --source phantom       does it run? no data needed
#   scripts/reproduce_ldct.sh --budget quick seed=0,1,2
# Data: all_patches.hdf5 in $MEDEXP_DATA/ldct. Table 2 is of the same runs as Table 1.
# Cost on 2 CPU cores, from measured steps: full 17 hours; quick 20 minutes; smoke minutes.
exec "$(dirname "${BASH_SOURCE[0]}")/reproduce.sh" ldct ldct_table1 ldct_table2 -- "$@"
