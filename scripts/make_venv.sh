#!/bin/sh
# make_venv.sh PYTHON VENV: a virtual environment, with Debian's missing pieces installed or named.
#
# Debian and Ubuntu keep ensurepip in python3-venv, and opencv-python needs two shared libraries
# that a server installation lacks. As root they are installed; else the command is printed.
set -eu
python=${1:?the interpreter} venv=${2:?the folder}

packages=""
"$python" -c 'import ensurepip' 2>/dev/null || packages="python3-venv"
if command -v ldconfig >/dev/null 2>&1; then
    ldconfig -p | grep -q 'libGL\.so\.1' || packages="$packages libgl1"
    ldconfig -p | grep -q 'libgthread-2\.0\.so\.0' || packages="$packages libglib2.0-0"
fi
if [ -n "$packages" ] && command -v apt-get >/dev/null 2>&1; then
    if [ "$(id -u)" = 0 ]; then
        apt-get update -qq && apt-get install -y -qq --no-install-recommends $packages
    else
        echo "medexp needs Debian packages: sudo apt-get install$(printf ' %s' $packages)" >&2
        case "$packages" in *venv*) exit 1 ;; esac
    fi
fi
"$python" -m venv "$venv"
"$venv/bin/python" -m pip install --progress-bar off -q --upgrade pip
