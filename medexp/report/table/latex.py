"""A table as LaTeX: a float for a paper, with booktabs."""

import re

from medexp.report.table.tables import Row, Table

# pdfLaTeX knows the letters of Latin-1; signs that it does not know are spelled out.
_SIGNS = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''",
    "[": "{[}", "]": "{]}", "*": "{*}",  # behind \\ they would be read as its arguments
    "†": r"\textdagger{}", "‡": r"\textdaggerdbl{}", "—": "---", "–": "--", "…": r"\ldots{}",
    "·": r"\textperiodcentered{}", "×": r"\texttimes{}", "²": r"\textsuperscript{2}",
    "±": r"\textpm{}", "−": r"$-$", "≤": r"$\leq$", "≥": r"$\geq$", "κ": r"$\kappa$",
    "→": r"$\to$", "“": "``", "”": "''", "‘": "`", "’": "'",
}  # fmt: skip
_ESCAPES = str.maketrans(_SIGNS)


def latex(table: Table) -> str:
    """One table as a float: the title its caption, the footnotes below it; shrunk if too wide.

    For pdfLaTeX with the packages booktabs and adjustbox, in a document in UTF-8.
    """
    groups = "\\addlinespace\n".join("".join(map(_line, group)) for group in table.groups)
    notes = "\\par\n".join(map(escaped, table.footnotes))
    return (
        "% \\usepackage{booktabs,adjustbox}\n"
        "\\begin{table}[htbp]\n\\centering\\small\n"
        f"\\caption{{{escaped(table.title)}}}\n"
        "\\begin{adjustbox}{max width=\\linewidth}\n"
        f"\\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}\n\\toprule\n"
        f"{' & '.join(map(escaped, table.header))} \\\\\n\\midrule\n{groups}\\bottomrule\n"
        "\\end{tabular}\n\\end{adjustbox}\n\n\\smallskip\n"
        f"\\begin{{minipage}}{{\\linewidth}}\\footnotesize\\raggedright\n{notes}\n\\end{{minipage}}\n"
        "\\end{table}\n"
    )


def escaped(text: str) -> str:
    """Text as LaTeX prints it."""
    return text.translate(_ESCAPES)


def _line(row: Row) -> str:
    label = escaped(row.cells[0])
    if row.kind == "reported":
        label = f"\\textbf{{{label}}}"
    elif row.kind == "detail":
        label = f"\\quad {label}"
    return f"{' & '.join([label, *map(_number, row.cells[1:])])} \\\\\n"


def _number(text: str) -> str:
    return re.sub(r"-(?=\d)", "$-$", escaped(text))
