"""The help of `medexp train` and `medexp eval`: their own text, then the groups and options."""

import textwrap
from collections.abc import Sequence

from medexp.config.groups import groups, options


def print_help(text: str, words: Sequence[str]) -> int:
    """Print a command's help and, wrapped to 80 columns, the groups; returns its exit code."""
    print(text)
    print("Groups and their options:")
    for group in groups():
        names = ", ".join(options(group, words))
        start = f"  {group:<10} "
        print(textwrap.fill(names, 78, initial_indent=start, subsequent_indent=" " * 13))
    return 0
