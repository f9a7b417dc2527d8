"""`python -m medexp`."""

from medexp.cli import main

main()
