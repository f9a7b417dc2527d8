"""What the plain commands share: an argument parser with examples, tables, wrapped lines.

rich is imported where something is printed, so that help answers at once.
"""

import argparse
import textwrap
from typing import Any

WIDTH = 80


def parser(
    command: str, text: str, examples: str, program: str = "medexp"
) -> argparse.ArgumentParser:
    """A parser whose help ends in examples; every command takes --config-dir."""
    made = argparse.ArgumentParser(
        prog=f"{program} {command}".strip(),
        description=text,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--config-dir", metavar="DIR", help="groups and modules of your own")
    return made


def rich_table(*columns: str) -> Any:
    """A table whose columns named with a final `>` are set flush right."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title_justify="left")
    for column in columns:
        table.add_column(column.rstrip(">"), justify="right" if column[-1] == ">" else "left")
    return table


def print_rich(content: Any) -> None:
    """Print a table or a text as it is: nothing in it is read as markup."""
    from rich.console import Console

    Console().print(content, markup=False, highlight=False)


def wrapped(text: str, indent: int = 0, hanging: int = 0) -> str:
    """Text in lines of at most 80 columns; a longer word is broken at its hyphens only.

    indent: spaces before the first line. hanging: spaces that the further lines have beside them.
    """
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + hanging),
        break_long_words=False,
    )
