"""Record what a fixed list of commands writes, and compare two recordings byte for byte.

    python tests/pinned.py record DIR [--tree CHECKOUT] [--only NAME ...]
    python tests/pinned.py compare OLD NEW

For a change that must keep every behaviour: record with the code before it (--tree, a worktree of
that commit) and with the code after it, then compare. Times, versions, paths and the dotted places
of targets are put aside; all else must be the same. It takes some minutes, so that no test runs it.
"""

import argparse
import difflib
import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
REAL = HERE.parent / "shared" / "data"
PHANTOM = ("source=phantom", "source.size=64", "trainer.epochs=2", "trainer.resamples=20")
SMALL = {  # recipe -> what makes it short
    "two_stage": ("second.trainer.epochs=1",),
    "ldct": ("dataset.size=40",),
    "cervixnet1": ("source.size=60", "dataset.size=80"),
    "cervixnet2": ("source.size=60", "dataset.size=80"),
    "cervix_resnet": (
        *("source.size=60", "dataset.size=64", "dataset.max_train=12", "trainer.max_steps=3"),
        *("model.weights=null", "trainer.batch_size=4"),
    ),
    "cervix_inception": (
        *("source.size=60", "dataset.size=64", "dataset.max_train=12", "trainer.max_steps=3"),
        *("trainer.switch_at=2", "trainer.batch_size=4"),
    ),
    "allnet": ("source.size=60", "dataset.size=75", "sampling.size=30", "model.dense=[64,32]"),
    "ucf50": (
        *("source.size=40", "dataset.size=32", "dataset.frames=3", "model.weights=null"),
        "trainer.batch_size=8",
    ),
    "tbt_no_pt": (
        *("source.size=24", "dataset.size=[3,32,32]", "model.weights=null"),
        "trainer.batch_size=8",
    ),
}
VARIED = {  # name -> overrides of a short run of native3
    "plain": (),
    "ema": ("trainer.ema=0.9", "trainer.patience=1", "schedule=plateau", "trainer.epochs=4"),
    "accumulate": ("trainer.accumulate=3", "trainer.clip_norm=0.5", "loss=weighted"),
    "switch": ("trainer.max_steps=3", "trainer.switch_at=2", "trainer.switch_to=[head]"),
    "stages": ("model.stages.head.l2=0.01", "model.stages.head.lr=0.002"),
    "balanced": ("sampling=balanced", "loss=focal", "optimizer=adam"),
    "offline": ("sampling=offline", "sampling.size=80", "optimizer=rmsprop_tf1"),
    "mixup": ("augment=mixup", "schedule=cosine", "schedule.warmup=1"),
    "strong": ("augment=strong", "schedule=one_cycle", "optimizer=sgd_keras"),
    "affine": ("augment=affine", "schedule=step", "schedule.every=1", "optimizer=momentum"),
    "cervix_augment": ("augment=cervix", "schedule=time", "optimizer=rmsprop"),
    "max_train": ("dataset.max_train=20", "schedule=exponential"),
    "diverged": ("optimizer.lr=1e20",),
    "split": ("dataset=all", "dataset.size=40", "model=ldct_m4", "dataset.split=patients"),
    "fold": (
        "dataset=ldct",
        "dataset.size=40",
        "model=ldct_m4",
        "dataset.folds=3",
        "dataset.fold=1",
    ),
    "frozen": (
        *("dataset=tbt", "source.size=24", "dataset.size=[3,32,32]", "model=viptt"),
        *("model.weights=null", "augment=none", "model.stages.colour.frozen=true"),
        "model.stages.features.frozen=true",
    ),
    "previews": ("plot_schedule=true", "plot_augment=true"),
}
ON_REAL = {
    "real_pcam": ("dataset=pcam", "model=native3"),
    "real_kaggle": ("dataset=pcam_kaggle", "model=native1", "dataset.test_share=0.3"),
    "real_ldct": ("dataset=ldct", "model=ldct_m4", "dataset.size=40"),
    "real_cells": ("dataset=image_folder", "dataset.root=data/cells", "dataset.size=48"),
}
ERRORS = {
    "no_command": ("trian",),
    "no_key": ("train", "trainer.epoch=3"),
    "no_option": ("train", "model=native33"),
    "wrong_type": ("train", "trainer.epochs=many"),
    "out_of_range": ("train", "source=phantom", "trainer.epochs=0"),
    "no_root": ("train", "dataset.root=nowhere"),
    "no_run": ("eval", "run=nowhere"),
    "no_resume": ("train", "resume=nowhere"),
}


def commands() -> dict[str, tuple[str, ...]]:
    """Name -> command line; later ones use the folders of earlier ones."""
    found: dict[str, tuple[str, ...]] = {}
    short = ("trainer.device=cpu", "trainer.threads=1", "trainer.amp=off")
    for name, changes in VARIED.items():
        where = () if name == "previews" else (f"hydra.run.dir=runs/{name}",)
        found[name] = ("train", *PHANTOM, *short, *changes, *where)
    for name, changes in SMALL.items():
        words = (*PHANTOM, "trainer.epochs=1", "trainer.monitor=val_loss", *short)
        found[name] = ("train", *words, f"recipe={name}", *changes, f"hydra.run.dir=runs/{name}")
    found["tuned"] = (
        *("train", *PHANTOM, "trainer.epochs=1", "trainer.monitor=val_loss", *short),
        *("recipe=tbt_pt_cw_aug", "source.size=24", "dataset.size=[3,32,32]"),
        *("trainer.batch_size=8", "init_from=runs/ucf50", "hydra.run.dir=runs/tuned"),
    )
    if REAL.is_dir():
        for name, changes in ON_REAL.items():
            words = ("trainer.epochs=2", "trainer.resamples=20", *short)
            found[name] = ("train", *words, *changes, f"hydra.run.dir=runs/{name}")
    found["resumed"] = ("train", "resume=runs/plain", "trainer.epochs=4")
    found["sweep"] = (
        *("train", "-m", *PHANTOM, *short, "seed=0,1", "model=native3,native4"),
        "hydra.sweep.dir=runs/sweep",
    )
    table = (
        *("train", "-m", "paper=ldct_table2", "paper.budget=smoke", "source=phantom", *short),
        *("source.size=64", "dataset.size=40", "paper.only=[M4]", "hydra.sweep.dir=runs/table"),
    )
    found["table"] = found["table_again"] = table
    found["eval"] = ("eval", "run=runs/plain", "hydra.run.dir=evals/test")
    found["eval_val"] = ("eval", "run=runs/ema", "split=val", "hydra.run.dir=evals/val")
    found["eval_tta"] = ("eval", "run=runs/ema", "tta=flips", "hydra.run.dir=evals/tta")
    found["ensemble"] = ("eval", "run=runs/plain,runs/ema", "hydra.run.dir=evals/ensemble")
    found["explain"] = (
        *("eval", "run=runs/plain", "explain=gradcam", "explain.n=2"),
        "hydra.run.dir=evals/explain",
    )
    found["check"] = ("data", "check", "source=phantom", "source.size=64", "--out", "data_check")
    found["explore"] = (
        *("data", "explore", "source=phantom", "source.size=64", "--out", "data_explore"),
    )
    found["report"] = ("report", "runs/plain", "runs/ema", "runs/sweep", "--page", "report.html")
    found["models"] = ("models",)
    found["layers"] = ("models", "allnet")
    found["datasets"] = ("datasets", "--json")
    found["papers"] = ("papers",)
    found["audit"] = ("papers", "audit")
    return found | ERRORS


def record(folder: Path, tree: Path, only: list[str]) -> None:
    work = folder / "work"
    for place in (work, folder / "out"):
        place.mkdir(parents=True, exist_ok=True)
    if REAL.is_dir() and not (work / "data").exists():
        (work / "data").symlink_to(REAL)
    environment = {
        **os.environ,
        **{"PYTHONPATH": str(tree), "MEDEXP_CACHE": str(folder / "cache"), "COLUMNS": "80"},
        **{"TERM": "dumb", "NO_COLOR": "1", "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"},
    }
    for name, words in commands().items():
        if only and name not in only:
            continue
        line = [sys.executable, "-m", "medexp", *words]
        done = subprocess.run(line, cwd=work, env=environment, capture_output=True, text=True)
        print(f"{name}: {done.returncode}", flush=True)
        for kind, text in (("out", done.stdout), ("err", done.stderr)):
            (folder / "out" / f"{name}.{kind}").write_text(text)
        (folder / "out" / f"{name}.code").write_text(f"{done.returncode}\n")


# What may differ: when and how fast, by which code, where.
PUT_ASIDE = (
    (r'"(commit|host|pid|started|time|platform|python|command)": .*', r'"\1": ~'),
    (r'"(wall_seconds|seconds|images_per_s)": [\d.e+-]+', r'"\1": ~'),
    (r"\d{4}-\d\d-\d\d[T_ ]\d\d[:-]\d\d[:-]\d\d([.,-]\d+)?([+-]\d{4})?", "~TIME"),
    (r"[\d,.]+ img/s", "~ img/s"),
    (r"\bpid \d+", "pid ~"),
    (r"[\d.]+ (s|ms|min|seconds)\b", r"~ \1"),
    (r"medexp(\.\w+)+\.(\w+)", r"medexp.*.\2"),
    (r"\b[0-9a-f]{8,40}\b", "~DIGEST"),
    (r"data:image/png;base64,[\w+/=]+", "~PICTURE"),
)


def normal(path: Path, root: Path) -> list[str]:
    """The lines of a file with what may differ put aside; of a picture its size in pixels."""
    if path.suffix in (".png", ".svg", ".pt", ".npy"):
        return [str(path.read_bytes()[16:24]) if path.suffix == ".png" else ""]
    text = path.read_text(encoding="utf-8", errors="replace").replace(str(root), "~ROOT")
    for pattern, word in PUT_ASIDE:
        text = re.sub(pattern, word, text)
    lines = text.splitlines()
    if path.name == "history.csv":
        timed = [lines[0].split(",").index(name) for name in ("seconds", "images_per_s")]
        rows = [line.split(",") for line in lines]
        lines = [",".join("~" if i in timed else c for i, c in enumerate(row)) for row in rows]
    return lines


def compared(root: Path) -> dict[str, Path]:
    """Name -> file of a recording, of those that are compared."""
    left_out = ("config.yaml", "run.log", "record.json")
    return {
        re.sub(PUT_ASIDE[2][0], "~TIME", path.relative_to(root).as_posix()): path
        for part in ("out", "work")
        for path in sorted((root / part).rglob("*"))
        if path.is_file()
        and not {".hydra", "data"} & set(path.relative_to(root).parts)
        and path.name not in left_out
    }


def compare(old: Path, new: Path) -> int:
    """Print what differs; returns the number of files that do."""
    before, after = compared(old), compared(new)
    different = 0
    for name in sorted({*before, *after}):
        if name not in before or name not in after:
            print(f"{name}: only in {'NEW' if name in after else 'OLD'}")
            different += 1
            continue
        lines = (normal(before[name], old), normal(after[name], new))
        if lines[0] != lines[1]:
            different += 1
            print(f"{name}:")
            shown = list(difflib.unified_diff(*lines, "OLD", "NEW", lineterm="", n=0))[2:14]
            print("\n".join(f"    {line[:200]}" for line in shown))
    print(f"{len(before)} and {len(after)} files, {different} differ")
    return different


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    actions = parser.add_subparsers(dest="action", required=True)
    one = actions.add_parser("record")
    one.add_argument("folder", type=Path)
    one.add_argument("--tree", type=Path, default=HERE)
    one.add_argument("--only", nargs="+", default=[])
    two = actions.add_parser("compare")
    two.add_argument("old", type=Path)
    two.add_argument("new", type=Path)
    words = parser.parse_args()
    if words.action == "record":
        record(words.folder.resolve(), words.tree.resolve(), words.only)
        return 0
    return bool(compare(words.old.resolve(), words.new.resolve()))


if __name__ == "__main__":
    sys.exit(main())
