"""All that was found, as plain data: what `--json` prints and tables are made from."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from benchmarks.speed import figures
from benchmarks.speed.figures import Measured, Spread
from benchmarks.speed.rounds import MEDEXP, Setup, cores


def summary(
    plan: Setup,
    facts: Mapping[str, Any],
    runs: Mapping[str, Sequence[Measured]],
    left_out: Mapping[str, str],
) -> dict[str, Any]:
    """All that was found, as plain data."""
    ours, settings = runs[MEDEXP], plan.settings
    versions = dict(facts["versions"])
    for found in runs.values():
        versions |= found[0].versions
    data = str(settings["names"]["dataset"])
    if plan.patches:
        data = f"random patches laid out as {data}"
    elif settings["source"]["kind"] == "phantom":
        data = f"{data} PHANTOM"
    return {
        "command": os.environ.get("MEDEXP_COMMAND", "python -m benchmarks.speed"),
        "time": time.strftime("%Y-%m-%d %H:%M"),
        "commit": ours[0].extra["commit"],
        "machine": {
            "name": facts["machine"],
            "cores": cores(),
            "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "load": plan.load,
        },
        "versions": versions,
        "work": {
            "model": settings["names"]["model"],
            "data": data,
            "batch_size": settings["trainer"]["batch_size"],
            "precision": plan.given.precision,
            "epochs": plan.given.epochs,
            "rounds": plan.given.rounds,
            **{key: facts[key] for key in ("images", "shape", "classes", "device")},
        },
        "measured": {name: together(found) for name, found in runs.items()},
        "ratios": {
            name: asdict(figures.ratios(epochs(ours), epochs(found)))
            for name, found in runs.items()
            if name != MEDEXP
        },
        "share_of_bare": share_of_bare(ours, runs["bare"]) if "bare" in runs else None,
        **beside_ceilings(plan, facts, runs),
        "left_out": dict(left_out),
    }


def together(found: Sequence[Measured]) -> dict[str, Any]:
    """The rounds of one contestant: every number's spread, and all of them."""

    def spread(name: str) -> dict[str, Any] | None:
        values = [getattr(one, name) for one in found]
        if None in values:
            return None
        return {**asdict(Spread.of(values)), "rounds": values}

    names = ("images_per_s", "training_images_per_s", "first_step", "memory", "device_memory")
    return {name: spread(name) for name in names} | {
        "precision": found[0].precision,
        "versions": dict(found[0].versions),
        "extra": [dict(one.extra) for one in found],
    }


def epochs(found: Sequence[Measured]) -> list[float]:
    return [one.images_per_s for one in found]


def share_of_bare(ours: Sequence[Measured], bare: Sequence[Measured]) -> dict[str, Any]:
    training = [one.training_images_per_s for one in ours]
    return {
        "epoch": asdict(figures.ratios(epochs(ours), epochs(bare))),
        "training": asdict(figures.ratios(training, epochs(bare))),
    }


def beside_ceilings(
    plan: Setup, facts: Mapping[str, Any], runs: Mapping[str, Sequence[Measured]]
) -> dict[str, Any]:
    """The device's ceilings and what the bare step and medexp's training reach of them."""
    if "bare" not in runs:
        return {"ceilings": None, "achieved": {}}
    precision, counts = facts["precision"], facts["counts"]
    width = 4 if precision == "float32" else 2
    batch = plan.settings["trainer"]["batch_size"]
    moved = figures.bytes_moved(counts["activations"], counts["parameters"], batch, width)
    image = {"multiply_adds": counts["multiply_adds"], "bytes": moved}
    seen = [one.extra["ceilings"] for one in runs["bare"]]
    found = {key: asdict(Spread.of(one[key] for one in seen)) for key in ("flops", "bytes")}
    achieved = {}
    for name in ("bare", MEDEXP):
        speed = median(one.training_images_per_s for one in runs[name])
        rates = figures.of_ceilings(speed, image)
        shares = {f"{key}_share": rate / found[key]["median"] for key, rate in rates.items()}
        achieved[name] = rates | shares
    return {"ceilings": {**found, "precision": precision, "image": image}, "achieved": achieved}
