"""The typed settings: every top-level key of a config, and what medexp itself reads in a node."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass
class Names:
    """The chosen options, which name the run directory and find the paper's row."""

    dataset: str = "???"
    model: str = "???"


@dataclass
class Plan:
    """What every data set's node may say besides its reader's arguments: which images go where.

    Shares are of all images. medexp/data/split.py says what each kind of split does.
    """

    split: str = "auto"  # auto | given | stratified | patients | random | per_class | file
    test_share: float = 0.2
    val_share: float = 0.1  # 0: validation is the test split, as in papers that have two parts
    split_seed: int = 0
    folds: int | None = None  # cross-validation: so many folds,
    fold: int | None = None  # of which this one (from 0) is the test split
    split_file: str | None = None  # CSV of id,split: a fixed list, such as a run's own split.csv
    max_train: int | None = None  # training images kept, a subset stratified by label
    allow_leak: bool = False  # patients on both sides: refused, or marked LEAKY
    on_error: str = "fail"  # fail | skip: an image that cannot be read


# Keys of a group's node that are facts about it and no arguments of its target.
FACTS = {
    "dataset": ("phantom", *(item.name for item in fields(Plan))),
    "model": ("about", "stages", "weights", "normalise"),
}


@dataclass
class Source:
    """Where the data set's files come from; conf/source."""

    kind: str = "disk"
    size: int | None = None
    seed: int = 0


@dataclass
class Stage:
    """How one stage of a network trains (model.stages); medexp/models/stages.py."""

    lr: float | None = None  # null: the optimizer's
    l2: float = 0.0
    l1: float = 0.0
    weight_decay: float | None = None  # null: the optimizer's
    frozen: bool = False
    fixed_statistics: bool = True  # of the BatchNorm layers of a stage while it is frozen


@dataclass
class Trainer:
    """How the loop runs; conf/trainer says what each key does."""

    epochs: int = 20
    batch_size: int = 32
    eval_batch_size: int = 256
    device: str = "auto"
    amp: str = "auto"
    channels_last: bool = True
    deterministic: bool = False
    threads: int | None = None
    data: str = "auto"
    cache_features: str = "auto"
    max_steps: int | None = None
    patience: int | None = None
    min_delta: float = 0.0
    prune_after: int | None = None
    clip_norm: float | None = None
    accumulate: int = 1
    ema: float = 0.0
    switch_at: int | None = None
    switch_to: list[str] = field(default_factory=list)
    compile: bool = False
    graphs: str = "auto"
    profile: bool = False
    monitor: str = "val_auc"
    resamples: int = 1000


@dataclass
class Config:
    """Every top-level key of `medexp train`."""

    names: Names = field(default_factory=Names)
    dataset: dict[str, Any] = field(default_factory=lambda: asdict(Plan()))
    model: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)
    source: Source = field(default_factory=Source)
    augment: dict[str, Any] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)
    trainer: Trainer = field(default_factory=Trainer)
    paper: dict[str, Any] | None = None
    seed: int = 0
    resume: str | None = None
    init_from: str | None = None
    second: dict[str, Any] = field(default_factory=dict)
    plot_schedule: bool = False
    plot_augment: bool = False
    debug: bool = False


@dataclass
class EvalConfig(Config):
    """Every top-level key of `medexp eval`: those of the run, and which split to evaluate."""

    run: str = "???"
    ensemble: list[str] | None = None  # of run=[A,B,C]; the data are of the first, which is `run`
    split: str = "test"
    tta: dict[str, Any] | None = None
    explain: dict[str, Any] | None = None
