"""What a config that is not the user's own may name, held against a list before any import.

The config of a run directory is read as data of unknown origin. Its targets may be those of
medexp's own options, networks and layers of torch and torchvision, classes and functions of the
folder that --config-dir names, and of packages in `trusted=`. SECURITY.md says what that promises.
"""

import ast
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from medexp.config.groups import conf_dir, groups
from medexp.config.settings import EvalSettings
from medexp.config.targets import locate
from medexp.errors import ConfigError, nearest, printable

ENVIRONMENT = "MEDEXP_TRUSTED"  # hands `trusted=` to the processes of a launcher

# Classes and functions that read, write, fetch and run nothing, whatever they are called with. Not
# all of torch: torch.load, torch.hub and torch.utils are ways out.
LISTED = re.compile(
    r"""
    medexp\.augment\.[A-Z]\w* | torch\.nn\.[A-Z]\w* | torch\.optim\.[A-Z]\w*
    | torchvision\.models\.(
        (alexnet|convnext_|densenet\d|efficientnet_|googlenet|inception_v3|maxvit_t|mnasnet\d
        |mobilenet_v|regnet_|resnet\d|resnext\d|shufflenet_v|squeezenet\d|swin_|vgg\d|vit_
        |wide_resnet\d)\w*
        | (AlexNet|ConvNeXt|DenseNet|EfficientNet|GoogLeNet|Inception3|MNASNet|MaxVit|MobileNetV[23]
        |RegNet|ResNet|ShuffleNetV2|SqueezeNet|SwinTransformer|VGG|VisionTransformer)
    )
    """,
    re.VERBOSE,
)
# Arguments by which a function of torchvision fetches weights from the network.
FETCHING = ("weights", "weights_backbone", "pretrained", "pretrained_backbone", "_args_")
_CONTROL = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f]")
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
_OPTION = re.compile(r"[\w-]+(,[\w-]+)*", re.ASCII)
_TOP = frozenset(EvalSettings.__dataclass_fields__)


def set_trusted(words: Sequence[str]) -> list[str]:
    """Take `trusted=PACKAGE,...` off a command line, for the rest of the process; the other words.

    Only the command line says whom to trust: what the environment brought along is dropped.
    """
    os.environ.pop(ENVIRONMENT, None)
    given = [word.partition("=")[2] for word in words if word.startswith("trusted=")]
    if not given:
        return list(words)
    packages = [name.strip(" '\"") for name in given[-1].strip("[]").split(",")]
    for name in packages:
        if not _DOTTED.fullmatch(f"{name}.x"):
            raise ConfigError(
                f"trusted={given[-1]}: {name!r} is no package. Name packages whose classes and "
                "functions the config of a run may call: trusted=timm,monai"
            )
    os.environ[ENVIRONMENT] = ",".join(packages)
    return [word for word in words if not word.startswith("trusted=")]


def check_saved(content: Mapping[str, Any], file: Path, made_with: str | None = None) -> None:
    """Raise ConfigError for what the config in a file may not name or hold.

    made_with: the --config-dir that the run says it was made with, for the remedy.
    """
    for name in content:
        if name not in _TOP:
            raise ConfigError(
                f"{file}: {_shown(name)}: no such key of a run's config. "
                f"{nearest(printable(str(name)), _TOP)}"
            )
    for key, name, value in _entries("", content):
        _check_value(f"{file}: {key}", value)
        _check_value(f"{file}: the key {key}", name)
        if "_target_" in str(name) or str(name).rpartition(".")[2] == "phantom":
            _check_path(f"{file}: {key}", value, made_with)
    for key in ("metrics", "observers"):
        for name, value in _mapping(content.get(key)).items():
            _check_path(f"{file}: {key}.{_shown(name)}", value, made_with)
    _check_weights(f"{file}: ", content)
    check_commands(f"{file}: paper", content.get("paper"))


def _entries(key: str, value: Any) -> Iterator[tuple[str, Any, Any]]:
    """(full key, its last part, value) of all that is inside a value, mappings and lists too."""
    items = enumerate(value) if isinstance(value, list) else _mapping(value).items()
    for name, inner in items:
        full = f"{key}.{_shown(name)}" if key else _shown(name)
        yield full, name, inner
        yield from _entries(full, inner)


def _check_value(key: str, value: Any) -> None:
    if isinstance(value, str):
        if "${" in value:
            raise ConfigError(
                f"{key}={_shown(value)}: an interpolation. The config of a run holds values alone, "
                "and nothing in it is looked up. Write the value in its place"
            )
        if _CONTROL.search(value):
            raise ConfigError(f"{key}={_shown(value)}: holds control characters. Remove them")
    elif not isinstance(value, (bool, int, float, type(None), Mapping, list)):
        raise ConfigError(f"{key}: a {type(value).__name__}, which no config of medexp holds")


def _check_path(key: str, value: Any, made_with: str | None) -> None:
    """Raise ConfigError where the dotted path of a class or function is not on the list."""
    if value is None and not key.endswith("_target_"):
        return
    if not isinstance(value, str) or not _DOTTED.fullmatch(value):
        raise ConfigError(f"{key}={_shown(value)}: no dotted path of a class or function")
    if value in _own_targets(key.endswith("phantom")) or LISTED.fullmatch(value):
        return
    own = os.environ.get("MEDEXP_CONFIG_DIR")
    if own and defined_in(Path(own), value):
        return
    if _in_trusted(key, value):
        return
    raise ConfigError(
        f"{key}={value}: not among what the config of a run may name (medexp's own options, "
        f"torch.nn, torch.optim, torchvision.models), so it was not imported.\n"
        f"{_remedy(value, own, made_with)}"
    )


def _remedy(value: str, own: str | None, made_with: str | None) -> str:
    package = value.partition(".")[0]
    if made_with and made_with != own:
        return (
            f"The run says that it was made with --config-dir {printable(made_with)}. If that "
            "folder is yours, or you know what its modules do, name it again. Or trust all of the "
            f"package: trusted={package}"
        )
    return (
        "If it is of a folder of your own, name that by --config-dir; if you know what the package "
        f"does, and trust all that is in it: trusted={package}"
    )


def _in_trusted(key: str, value: str) -> bool:
    """Whether a path lies in a package of `trusted=`, and what it leads to is of one too."""
    names = [name for name in os.environ.get(ENVIRONMENT, "").split(",") if name]
    if not any(value.startswith(f"{name}.") for name in names):
        return False
    of = str(getattr(locate(value, key), "__module__", None))
    if not any(f"{of}.".startswith(f"{name}.") for name in names):
        raise ConfigError(
            f"{key}={value}: is of {of}, which is not in trusted={','.join(names)}. Name it by "
            "the package that defines it"
        )
    return True


@cache
def _own_targets(phantom: bool) -> frozenset[str]:
    """The targets, or the writers of phantoms, that medexp's own options name."""
    name = "phantom" if phantom else "_target_"
    line = re.compile(rf"^[ -]*{name}: *([\w.]+)", re.MULTILINE)
    return frozenset(
        found
        for group in groups()
        if group not in ("tune", "paper")
        for file in (conf_dir() / group).glob("*.yaml")
        for found in line.findall(file.read_text(encoding="utf-8"))
    )


def _check_weights(key: str, content: Any) -> None:
    """Raise ConfigError where a network of torchvision would fetch weights.

    `weights` of the model's own node is medexp's, which fetches nothing but what it knows.
    """
    if isinstance(content, list):
        for number, inner in enumerate(content):
            _check_weights(f"{key}{number}.", inner)
    if not isinstance(content, Mapping):
        return
    if str(content.get("_target_")).startswith("torchvision.models."):
        for name in FETCHING:
            ours = name == "weights" and key.endswith(": model.")
            if content.get(name) and not ours:
                raise ConfigError(
                    f"{key}{name}={_shown(content[name])}: torchvision would fetch weights for it. "
                    "Use model.weights"
                )
    for name, inner in content.items():
        _check_weights(f"{key}{_shown(name)}.", inner)


# ---------------------------------------------------------------- the commands in a paper's node


def check_commands(key: str, paper: Any) -> None:
    """Raise ConfigError where a row's command sets what is no setting, or an option by a path.

    A row's command is composed again to tell in what a run deviates from it.
    """
    node = _mapping(paper)
    commands = [("base", node.get("base")), *_budgets("budgets", node)]
    for name, start in _mapping(node.get("before")).items():
        commands += [(f"before.{name}", _mapping(start).get("run"))]
        commands += _budgets(f"before.{name}", _mapping(start))
    rows = node.get("rows")
    for number, row in enumerate(rows if isinstance(rows, list) else ()):
        commands += [(f"rows.{number}.run", _mapping(row).get("run"))]
        commands += _budgets(f"rows.{number}.budgets", _mapping(row))
    options = {*groups(), "recipe", "experiment"}
    for place, command in commands:
        for name, value in _mapping(command).items():
            where = f"{key}.{_shown(place)}: {_shown(name)}={_shown(value)}"
            bare = re.sub(r"^(\+{1,2}|~)", "", str(name))
            first = bare.partition(".")[0]
            if first not in (*_TOP, *options) or not re.fullmatch(r"[\w.]+", bare):
                raise ConfigError(f"{where}: no setting of a run, which is all that a row may set")
            texts = value if isinstance(value, list) else [value]
            if bare in options and not all(_OPTION.fullmatch(str(text)) for text in texts):
                raise ConfigError(f"{where}: no name of an option of {bare}")
            _refuse_targets(where, value)
    # Networks are built to count their parameters, by overrides that an entry lists.
    for where, _, value in _entries(f"{key}.audit", node.get("audit")):
        _refuse_targets(where, value)
        if isinstance(value, str) and re.match(r"[+~]*(hydra|/|[\w/]*@)", value):
            raise ConfigError(f"{where}={_shown(value)}: no setting of a run")


def _refuse_targets(where: str, value: Any) -> None:
    for _, name, inner in _entries("", [value]):
        if "_target_" in f"{name} {inner}":
            raise ConfigError(f"{where}: a target inside of a command, which is not taken")


def _budgets(key: str, node: Mapping[Any, Any]) -> list[tuple[str, Any]]:
    return [(f"{key}.{name}", inner) for name, inner in _mapping(node.get("budgets")).items()]


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _shown(value: Any) -> str:
    """A value as a message has it: its first characters, none that a terminal obeys."""
    text = " ".join(printable(str(value)).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


# ---------------------------------------------------------------- the user's own folder


def defined_in(folder: Path, dotted: str) -> bool:
    """Whether a class or function is defined in the modules of a folder, which are not imported.

    What a module takes from elsewhere (`from joblib import load`) is not; what a package takes
    from its own modules is.
    """
    parts = dotted.split(".")
    if parts[0] in sys.stdlib_module_names:
        return False
    loaded = getattr(sys.modules.get(parts[0]), "__file__", None)
    theirs = [folder / f"{parts[0]}.py", folder / parts[0] / "__init__.py"]
    if loaded and Path(loaded).resolve() not in [file.resolve() for file in theirs]:
        return False  # an import would give another package of that name
    return _defines(folder, tuple(parts[:-1]), parts[-1], 0)


def _defines(folder: Path, module: tuple[str, ...], name: str, hops: int) -> bool:
    base = folder.joinpath(*module)
    package = (base / "__init__.py").is_file()
    file = base / "__init__.py" if package else base.with_suffix(".py")
    if not module or hops > 8 or not file.is_file():
        return False
    try:
        body = ast.parse(file.read_text(encoding="utf-8")).body
    except (OSError, ValueError, SyntaxError):
        return False
    found = False
    for statement in _statements(body):  # the last definition of a name counts
        if isinstance(statement, (ast.ClassDef, ast.FunctionDef)) and statement.name == name:
            found = True
        elif isinstance(statement, (ast.Assign, ast.AnnAssign, ast.Import)):
            found = found and name not in _bound(statement)
        elif isinstance(statement, ast.ImportFrom):
            for alias in statement.names:
                if name in (alias.asname or alias.name, "*") or alias.name == "*":
                    origin = _origin(statement, module if package else module[:-1])
                    theirs = name if alias.name == "*" else alias.name
                    taken = origin is not None and _defines(folder, origin, theirs, hops + 1)
                    found = taken or (found and alias.name == "*" and origin is not None)
    return found


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module, those inside of `if`, `try` and `with` too."""
    for statement in body:
        yield statement
        for name in ("body", "orelse", "finalbody", "handlers"):
            if isinstance(statement, (ast.If, ast.Try, ast.With)):
                for inner in getattr(statement, name, ()):
                    handled = isinstance(inner, ast.ExceptHandler)
                    yield from _statements(inner.body if handled else [inner])


def _bound(statement: ast.Assign | ast.AnnAssign | ast.Import) -> set[str]:
    if isinstance(statement, ast.Import):
        return {alias.asname or alias.name.partition(".")[0] for alias in statement.names}
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return {n.id for one in targets for n in ast.walk(one) if isinstance(n, ast.Name)}


def _origin(statement: ast.ImportFrom, package: tuple[str, ...]) -> tuple[str, ...] | None:
    """The module that an import takes from, as it lies in the folder; None where it cannot."""
    named = tuple((statement.module or "").split(".")) if statement.module else ()
    if not statement.level:
        return None if not named or named[0] in sys.stdlib_module_names else named
    up = len(package) - (statement.level - 1)
    return (*package[:up], *named) if up >= 0 else None
