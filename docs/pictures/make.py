"""Make the README's picture of a terminal from a real run.

    python docs/pictures/make.py

It runs `medexp train source=phantom` in a temporary folder and draws what the terminal showed.
"""

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

HERE = Path(__file__).parent
LINE = "medexp train source=phantom trainer.epochs=6"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "COLUMNS": "80", "MEDEXP_CACHE": f"{folder}/cache"}
        command = [sys.executable, "-m", *LINE.split(), "trainer.device=cpu"]
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        )
    text = done.stdout.replace(f"{folder}/cache", "~/.cache/medexp")
    lines = [line.rstrip() for line in text.splitlines()]
    # The file has all of it; a README shows how it begins and the row that was made.
    table = next(i for i, line in enumerate(lines) if line.startswith("#3 "))
    head = next(i for i, line in enumerate(lines) if "Table 4" in line)
    shown = [f"$ {LINE}", *lines[: head + 3], *lines[table : table + 6]]
    console = Console(record=True, width=86, file=io.StringIO())
    for line in shown:
        console.print(Text(line), no_wrap=True, overflow="ellipsis")
    picture = console.export_svg(title="medexp")
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.S)  # no network to read it
    (HERE / "train.svg").write_text(picture.replace("Fira Code,", ""), encoding="utf-8")


if __name__ == "__main__":
    main()
