"""`python -m benchmarks.speed`, in a checkout."""

import sys

from benchmarks.speed.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
