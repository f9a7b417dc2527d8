"""The typed settings of a run: every key that medexp itself reads, with its help and its range.

Inside a group's node the keys are the arguments of its `_target_`, whose signature says what they
are (config/targets.py); here stand the keys beside them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, TypeVar

from medexp.config.tree import (
    Node,
    build,
    defaults_of,
    leaves,
    plain,
    setting,
    without_numbers,
)
from medexp.errors import ConfigError, nearest


@dataclass(frozen=True)
class Names:
    """The chosen options, which name the run directory and find the paper's row."""

    dataset: str
    model: str


SPLITS = ("auto", "given", "stratified", "patients", "random", "per_class", "file")


@dataclass(frozen=True)
class SplitSettings:
    """What every data set's node may say besides its reader's arguments: which images go where.

    Shares are of all images. medexp/data/split.py says what each kind of split does.
    """

    split: str = setting("auto", "the kind of split", choices=SPLITS)
    test_share: float = setting(0.2, "of all images", least=0, below=1)
    val_share: float = setting(
        0.1, "of all images; 0: validation is the test split", least=0, below=1
    )
    split_seed: int = setting(0, "of the draw", least=0)
    folds: int | None = setting(None, "cross-validation: so many folds", least=2)
    fold: int | None = setting(None, "which of the folds, from 0, is the test split", least=0)
    split_file: str | None = setting(None, "CSV of id,split, such as a run's own split.csv")
    max_train: int | None = setting(None, "training images kept, a subset stratified by label")
    allow_leak: bool = setting(False, "patients on both sides are marked LEAKY, not refused")
    on_error: str = setting("fail", "an image that cannot be read", choices=("fail", "skip"))


@dataclass(frozen=True)
class DatasetNode(Node):
    """A reader and its arguments; which images go where; the function that writes phantoms."""

    FACTS: ClassVar[tuple[str, ...]] = ("phantom", *(item.name for item in fields(SplitSettings)))
    split: SplitSettings = field(init=False)

    def __post_init__(self) -> None:
        names = {item.name for item in fields(SplitSettings)}
        values = {key: value for key, value in self.content.items() if key in names}
        object.__setattr__(self, "split", build(SplitSettings, values, "dataset."))

    @staticmethod
    def defaults() -> dict[str, Any]:
        """What the schema holds, so that the command line may set it for any data set."""
        return defaults_of(SplitSettings)


@dataclass(frozen=True)
class Stage:
    """How one stage of a network trains (model.stages); medexp/models/stages.py."""

    lr: float | None = setting(None, "learning rate; null: the optimizer's", least=0)
    l2: float = setting(0.0, "factor of the sum of squared kernels in the loss", least=0)
    l1: float = setting(0.0, "factor of the sum of absolute kernels in the loss", least=0)
    weight_decay: float | None = setting(None, "null: the optimizer's", least=0)
    frozen: bool = setting(False, "its parameters do not train")
    fixed_statistics: bool = setting(
        True, "BatchNorm's statistics stay as they are while the stage is frozen"
    )


@dataclass(frozen=True)
class ModelNode(Node):
    """A network and its arguments; what its weights start from; how its stages train."""

    FACTS: ClassVar[tuple[str, ...]] = ("about", "stages", "weights", "normalise")
    stages: Mapping[str, Stage] = field(init=False)

    def __post_init__(self) -> None:
        stages = {
            name: build(Stage, values or {}, f"model.stages.{name}.")
            for name, values in (self.content.get("stages") or {}).items()
        }
        object.__setattr__(self, "stages", stages)

    @property
    def weights(self) -> str | None:
        """`imagenet`, or the path of a file of weights."""
        return self.content.get("weights")

    @property
    def normalise(self) -> bool | None:
        """Whether inputs are normalised as ImageNet's; None: where the weights are ImageNet's."""
        return self.content.get("normalise")

    @property
    def about(self) -> Mapping[str, Any]:
        """What its paper says of it."""
        return self.content.get("about") or {}


# Keys of a group's node that are no arguments of its target.
FACTS = {"dataset": DatasetNode.FACTS, "model": ModelNode.FACTS}


@dataclass(frozen=True)
class Source:
    """Where the data set's files come from; conf/source."""

    kind: str = setting("disk", "the public files, or synthetic ones", choices=("disk", "phantom"))
    size: int | None = setting(None, "phantom images; null: the generator's default")
    seed: int = setting(0, "of the phantoms")


@dataclass(frozen=True)
class Trainer:
    """How the loop runs; conf/trainer/default.yaml explains each key at length."""

    epochs: int = setting(20, "passes over the training images", least=1)
    batch_size: int = setting(32, "images of a step", least=1)
    eval_batch_size: int = setting(256, "images of a step of evaluation", least=1)
    device: str = setting("auto", "auto, cuda, cuda:1, cpu or mps", numbers=False)
    devices: int | None = setting(None, "devices of one run; null: one", least=1)
    sync_batchnorm: bool = setting(False, "BatchNorm's statistics are of all devices' images")
    amp: str = setting("auto", "precision of training", choices=("auto", "off", "bf16", "fp16"))
    channels_last: bool = setting(True, "memory layout of images and kernels")
    deterministic: bool = setting(False, "the same bits on CUDA too, slower")
    threads: int | None = setting(None, "CPU threads; null: torch's choice", least=1, numbers=False)
    data: str = setting(
        "auto", "where images live", choices=("auto", "device", "stream"), numbers=False
    )
    cache_features: str = setting(
        "auto", "keep what frozen stages compute", choices=("auto", "on", "off"), numbers=False
    )
    max_steps: int | None = setting(None, "steps in all; the last epoch is cut short", least=1)
    patience: int | None = setting(None, "epochs without a gain that end it", least=1)
    min_delta: float = setting(0.0, "what counts as a gain", least=0)
    prune_after: int | None = setting(None, "epochs after which a hopeless job ends", least=1)
    clip_norm: float | None = setting(None, "limit of the norm of all gradients", above=0)
    accumulate: int = setting(1, "parts that a batch is computed in", least=1)
    ema: float = setting(0.0, "decay of a moving average of the weights; 0: none", least=0, below=1)
    switch_at: int | None = setting(None, "step from which only the stages of switch_to train")
    switch_to: tuple[str, ...] = setting((), "names of stages")
    compile: bool = setting(False, "train by torch.compile")
    graphs: str = setting("auto", "replay steps as CUDA graphs", choices=("auto", "on", "off"))
    profile: bool = setting(False, "write a table of where the time goes", numbers=False)
    monitor: str = setting("val_auc", "val_loss or a val_ column: which epoch is the best")
    val_penalty: bool = setting(False, "val_loss holds L1 and L2 too, as Keras reports it")
    resamples: int = setting(1000, "draws behind the intervals; 0: no intervals")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every top-level key of `medexp train`."""

    names: Names
    dataset: DatasetNode
    model: ModelNode
    optimizer: Node
    schedule: Node
    source: Source
    augment: Node
    sampling: Node
    loss: Node
    trainer: Trainer
    paper: Mapping[str, Any] | None = setting(None, "the table to mirror; conf/paper")
    seed: int = setting(0, "initial weights, order, augmentation, dropout")
    resume: str | None = setting(None, "a run directory to go on with", numbers=False)
    init_from: str | None = setting(None, "a run directory whose best weights to start from")
    second: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)  # name -> path of a user's function
    observers: Mapping[str, Any] = field(default_factory=dict)  # name -> path; they decide nothing
    plot_schedule: bool = setting(False, "draw the learning rate and stop")
    plot_augment: bool = setting(False, "draw examples of the augmentation and stop")
    debug: bool = setting(False, "a traceback with every error", numbers=False)


@dataclass(frozen=True, kw_only=True)
class EvalSettings(Settings):
    """Every top-level key of `medexp eval`: those of the run, and which split to evaluate."""

    run: str
    ensemble: tuple[str, ...] | None = setting(None, "the runs of run=A,B,C; `run` is the first")
    split: str = setting(
        "test", "which images; all: every one, undivided", choices=("train", "val", "test", "all")
    )
    tta: Node | None = setting(None, "test-time augmentation; conf/tta")
    explain: Node | None = setting(None, "pictures of what the network looks at; conf/explain")


# What a second phase of training may do otherwise.
PHASE_KEYS = (
    *("dataset", "model", "optimizer", "schedule"),
    *("augment", "sampling", "loss", "trainer"),
)
S = TypeVar("S", bound=Settings)


def last_phase(settings: S) -> S:
    """The settings of the phase whose weights are kept: those of `second` over the others.

    A node of `second` with a `_target_` of its own replaces the first phase's node.
    """
    merged = plain(settings)
    for group, changes in settings.second.items():
        if group not in PHASE_KEYS:
            raise ConfigError(f"second.{group}: not of a phase. {nearest(group, PHASE_KEYS)}")
        if not isinstance(changes, Mapping):
            raise ConfigError(f"second.{group}={changes!r}: need keys and values of that group")
        merged[group] = dict(changes) if "_target_" in changes else merged[group] | dict(changes)
    trainer = build(Trainer, merged["trainer"], "second.trainer.")
    return replace(build(type(settings), merged), trainer=trainer)


def decisive(content: Mapping[str, Any]) -> dict[str, Any]:
    """KEY -> value of all that decides a run's numbers, of the plain data of its settings.

    Two runs for which it is equal are the same run. A data set's root and the table that is
    mirrored decide nothing either, and an empty mapping is as good as none.
    """
    exempt = {*without_numbers(Settings), "dataset.root"}
    return {
        key: value
        for key, value in leaves(content)
        if key not in exempt and not key.startswith(("paper.", "observers.")) and value != {}
    }
