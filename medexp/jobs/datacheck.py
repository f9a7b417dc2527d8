"""`medexp data check`: a data set as a run would read it, held against what falsifies a result."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medexp.config.settings import Settings
from medexp.data import Dataset, Pool
from medexp.data.check import check, check_list
from medexp.data.load import as_dataset, lenient, load_pool
from medexp.data.progress import bar
from medexp.data.split import split_rows
from medexp.jobs.samples import Draw, artist, class_samples
from medexp.report.page.datapage import write_page
from medexp.runs.files import write_json


def examine(settings: Settings) -> tuple[dict[str, Any], Dataset | None]:
    """What `check` finds, and the data set it is of; None where only a list of files is known."""
    loaded = load_pool(settings)
    split = lenient(settings.dataset.split)
    data = None
    if isinstance(loaded, Pool) and loaded.decode is None and loaded.array is None:
        listed = split_rows(loaded, split)
        report = check_list(loaded, listed.rows)
        report["notes"] += listed.notes
        report["marks"] |= {mark: why for mark, why in listed.marks.items() if mark != "LEAKY"}
    else:
        data = as_dataset(loaded, split)
        with bar(f"checking {data.name}", sum(map(len, data.splits().values()))) as advance:
            report = check(data, advance)
    if settings.source.kind == "phantom":
        size, seed = settings.source.size, settings.source.seed
        how = f"seed {seed}" if size is None else f"size {size}, seed {seed}"
        report["partial"] = []
        report["marks"] = {"PHANTOM": f"synthetic images, not patients ({how})", **report["marks"]}
    return report, data


def write_report(folder: Path, report: Mapping[str, Any], data: Dataset | None) -> Path:
    """Write fingerprint.json and index.html; returns the path of the page."""
    write_json(folder / "fingerprint.json", report)
    page = folder / "index.html"
    if data is None:
        write_page(page, report, {}, [], [])
        return page
    draw: Draw = artist(data, (report.get("histogram") or {}).get("shown", (0.0, 1.0)))
    write_page(
        page,
        report,
        class_samples(data, draw),
        copies=[[draw(one) for one in group] for group in report["duplicates"]],
        alike=[
            [draw(pair["first"]), draw(pair["second"])]
            for pair in report["near_duplicates"]["examples"]
        ],
    )
    return page
