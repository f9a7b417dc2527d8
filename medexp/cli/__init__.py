"""The commands: one file a command, behind one dispatcher. Nothing is computed here."""

from medexp.cli.dispatch import main

__all__ = ["main"]
