#!/bin/sh
# Prints the first interpreter that medexp supports (3.11 to 3.13), python3 first.
for python in python3 python3.13 python3.12 python3.11; do
    if "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null
    then
        echo "$python"
        exit 0
    fi
done
echo "medexp needs Python 3.11, 3.12 or 3.13; none was found. Install one (Debian, Ubuntu:" >&2
echo "apt-get install python3 python3-venv) or name one: make PYTHON=/path/to/python3.12" >&2
exit 1
