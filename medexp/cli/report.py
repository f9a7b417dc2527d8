"""`medexp report`: tables and pages of run directories."""

from pathlib import Path

from medexp.cli.terminal import parser
from medexp.jobs.finish import render_again, show, write_page


def report(arguments: list[str]) -> int:
    """Print tables and, with --page, write one HTML page of all runs."""
    p = parser(
        "report",
        "The tables of run or sweep directories, beside the paper's where there is one.\n"
        "A table.json in the place of DIR: its other forms are written again beside it.",
        "  medexp report outputs/pcam-native3/*\n  medexp report outputs/sweeps/TIME\n"
        "  medexp report outputs/papers/* --page papers.html\n"
        "  medexp report outputs/sweeps/TIME/table.json",
    )
    p.add_argument("folders", nargs="+", metavar="DIR", type=Path)
    p.add_argument("--page", metavar="FILE", type=Path, help="write one HTML page of all of them")
    p.add_argument("--figures", metavar="DIR", type=Path, help="put its PNG files on the page too")
    args = p.parse_intermixed_args(arguments)
    files = [path for path in args.folders if path.suffix == ".json"]
    folders = [path for path in args.folders if path not in files]
    for path in files:
        render_again(path)
    show(folders)
    if args.page:
        more = sorted(args.figures.glob("*.png")) if args.figures else []
        print(write_page(folders, args.page, more))
    return 0
