"""The short table at the end: python -m benchmarks.on_gpu.table FIGURES.jsonl"""

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.on_gpu.figures import Figure, known, shown


def markdown(figures: Sequence[Figure]) -> str:
    """A row a figure, in the order in which they were found; goals with whether they are met."""
    lines = ["| step | what | measured | goal | met |", "| --- | --- | ---: | ---: | --- |"]
    words = {None: "", True: "yes", False: "**no**"}
    for figure in figures:
        if figure.what == "step" and str(figure.value).startswith("done"):
            continue
        cells = [figure.step, figure.what, shown(figure), figure.goal, words[figure.met()]]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown(known(Path(sys.argv[1]))))
