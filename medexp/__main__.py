"""`python -m medexp`."""

from medexp.cli.main import main

main()
