#!/usr/bin/env bash
# Gathers in .whl/, which git ignores, the wheels that the GPU machine lacks.
#
#   benchmarks/on_gpu/wheels.sh [PYTHON]
#
# PYTHON has pip and a package index; the wheels are for Python 3.12 on x86-64 Linux whatever it is.
# antlr4's runtime is a source package, whose wheel is built here. All else that medexp needs is on
# that machine, so nothing else is fetched: two versions of one package would stop the installation.
set -euo pipefail

python=${1:-python3}
root=$(cd "$(dirname "$0")/../.." && pwd)
limit=$((64 * 1024 * 1024)) # of all that travels, the working tree included

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" # a download within the repository would be taken along
platforms=()
for tag in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014; do
    platforms+=(--platform "${tag}_x86_64")
done
"$python" -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 \
    --implementation cp "${platforms[@]}" -d wheels \
    'hydra-core>=1.3.8,<1.4' 'omegaconf>=2.3,<2.4' 'hydra-joblib-launcher>=1.2,<1.3' \
    'nibabel>=5.2' 'ImageHash>=4.3' 'PyWavelets>=1.6'
"$python" -m pip wheel -q --no-deps -w wheels 'antlr4-python3-runtime==4.9.*'

bytes=$(cat wheels/*.whl | wc -c)
if ((bytes > limit / 2)); then
    echo "The wheels take $bytes bytes, of $limit that may travel with the working tree" >&2
    exit 1
fi
rm -rf "$root/.whl"
mv wheels "$root/.whl"
ls -l "$root/.whl"
