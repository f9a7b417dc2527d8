"""LaTeX: a document that compiles, and says what the table says."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from medexp.report.table.latex import escaped, latex
from medexp.report.table.render import load_tables
from medexp.report.table.tables import Row, Table
from tests.report.frozen.build import HERE, SETS

NASTY = r"a_b #1 50% {x} [y] $c & d~e^f \g <h> |i| *j* † ‡ — – · × ² − ± ≤ ≥ κ → é “k” ‘l’"
# What the commands that stand for a sign print; all else of `escaped` is a sign behind a backslash.
PRINTED = {
    r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^",
    r"\textless{}": "<", r"\textgreater{}": ">", r"\textbar{}": "|", r"\textdagger{}": "†",
    r"\textdaggerdbl{}": "‡", r"\textperiodcentered{}": "·", r"\texttimes{}": "×",
    r"\textsuperscript{2}": "²", r"\textpm{}": "±", "$-$": "−", r"$\leq$": "≤", r"$\geq$": "≥",
    r"$\kappa$": "κ", r"$\to$": "→", "---": "—", "--": "–", "{[}": "[", "{]}": "]", "{*}": "*",
    "``": "“", "''": "”", "`": "‘", "'": "’",
}  # fmt: skip
TOKENS = re.compile("|".join([*map(re.escape, PRINTED), r"\\[#$%&_{}]", r"[^\\]"]))


def printed(text: str) -> str:
    """What LaTeX shows for a text that uses the commands of PRINTED alone."""
    tokens = TOKENS.findall(text)
    assert "".join(tokens) == text, "a command that is not known here"
    return "".join(PRINTED.get(token, token.removeprefix("\\")) for token in tokens)


def nasty() -> Table:
    rows = (
        Row("reported", ("#1_a reported", "0.5†", "—")),
        Row("ours", ("[x]=1 *", "-0.25 (0.10)", "1e-3")),
        Row("detail", ("95% interval", "[-0.50, 0.10]", "n/c")),
    )
    return Table(NASTY, ("PHANTOM",), "done", ("Model", "A & B %", "C_1"), (rows, rows), (NASTY,))


def all_tables() -> list[Table]:
    return [
        nasty(),
        *(table for name in SETS for table in load_tables(HERE / name / "table.json").tables),
    ]


def test_signs_are_printed_as_they_are() -> None:
    assert printed(escaped(NASTY)) == NASTY
    assert escaped("50% of_x") == r"50\% of\_x"


@pytest.mark.parametrize("table", all_tables(), ids=lambda table: table.name[:20])
def test_the_document_has_the_cells_of_the_table(table: Table) -> None:
    text = latex(table)
    depth = 0
    for token in re.findall(r"\\.|[{}]", text):
        depth += {"{": 1, "}": -1}.get(token, 0)
        assert depth >= 0
    assert depth == 0
    names = (
        "table",
        "adjustbox",
        "tabular",
        "tabular",
        "adjustbox",
        "minipage",
        "minipage",
        "table",
    )
    assert re.findall(r"\\(?:begin|end)\{(\w+)\}", text) == [*names]
    assert f"\\caption{{{escaped(table.title)}}}" in text
    body = text.partition("\\toprule\n")[2].partition("\\bottomrule")[0]
    rules = ("\\midrule", "\\addlinespace")
    lines = [line for line in body.splitlines() if line not in rules]
    assert body.count("\\addlinespace") == len(table.groups) - 1
    assert all(line.endswith(r" \\") for line in lines)
    cells = [re.split(r"(?<!\\) & ", line.removesuffix(r" \\")) for line in lines]
    assert [tuple(map(plain, row)) for row in cells] == [
        table.header,
        *(row.cells for row in table.rows),
    ]
    notes = text.partition("\\raggedright\n")[2].partition("\n\\end{minipage}")[0].split("\\par\n")
    assert [printed(note) for note in notes] == [n.replace("'", "’") for n in table.footnotes]


def plain(cell: str) -> str:
    """What a cell prints, with the minus of a number as on a keyboard."""
    cell = re.sub(r"^\\textbf\{(.*)\}$", r"\1", cell).removeprefix("\\quad ")
    return printed(cell.replace("$-$", "-"))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_it_compiles(tmp_path: Path) -> None:
    tables = "\n".join(map(latex, all_tables()))
    document = (
        "\\documentclass{article}\n\\usepackage{booktabs,adjustbox}\n"
        f"\\begin{{document}}\n{tables}\\end{{document}}\n"
    )
    (tmp_path / "all.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "all.pdf").stat().st_size > 10_000
