"""What a config of unknown origin may name: the list, and what widens it."""

import inspect
import os
import sys
from pathlib import Path

import pytest
import torch
from torchvision import models

from medexp.config import trust
from medexp.config.compose import compose, compose_node
from medexp.config.groups import conf_dir, groups, options
from medexp.config.tree import plain
from medexp.config.trust import LISTED, check_commands, check_saved, defined_in, set_trusted
from medexp.errors import ConfigError
from tests.conftest import MINE

FILE = Path("run/config.yaml")


@pytest.fixture(autouse=True)
def nobody_trusted(monkeypatch):
    monkeypatch.delenv("MEDEXP_CONFIG_DIR", raising=False)
    monkeypatch.delenv("MEDEXP_TRUSTED", raising=False)


def refused(content, message, made_with=None):
    before = set(sys.modules)
    with pytest.raises(ConfigError, match=message) as caught:
        check_saved(content, FILE, made_with)
    assert set(sys.modules) == before, "it was imported"
    return str(caught.value)


# ---------------------------------------------------------------- medexp's own configs pass


@pytest.mark.parametrize("recipe", options("recipe"))
def test_what_a_recipe_composes_to_is_taken(recipe):
    check_saved(plain(compose([f"recipe={recipe}"])), FILE)


def test_every_option_of_every_group_is_taken():
    passed = 0
    for group in set(groups()) - {"recipe", "tune", "paper"}:
        for option in options(group):
            node = compose_node(group, option)
            check_saved({"names": {}, group: node}, FILE)
            passed += "_target_" in (node or {})
    assert passed > 60


def test_the_commands_of_every_paper_are_taken():
    rows = 0
    for paper in options("paper"):
        node = compose_node("paper", paper)
        check_commands("paper", node)
        check_saved({"names": {}, "paper": node}, FILE)
        rows += sum("run" in row for row in node["rows"])
    assert rows > 100


def test_a_row_may_add_and_take_away():
    """docs/extending.md's own table adds a metric."""
    run = {"+metrics.balanced": "mymetrics.balanced", "++model.width": 3, "~schedule.every": None}
    check_commands(
        "paper", {"base": run, "rows": [{"label": "a", "run": {"model": "mynet,native1"}}]}
    )


# ---------------------------------------------------------------- the list


def test_of_torch_only_what_has_no_way_out():
    """Whatever the pattern lets through is a layer, a parameter, an optimizer or a network."""
    kinds = {torch.nn: (torch.nn.Module, torch.Tensor), torch.optim: (torch.optim.Optimizer,)}
    for module, allowed in kinds.items():
        for name in dir(module):
            if not LISTED.fullmatch(f"{module.__name__}.{name}"):
                continue
            if name == "LinearCrossEntropyOptions":  # a record of numbers
                continue
            found = getattr(module, name)
            # Buffer and Parameter make tensors, and are no subclasses for type().
            assert inspect.isclass(found), name
            assert issubclass(found, allowed) or name.endswith(("Buffer", "Parameter")), name
    for builder in models.list_models(module=models):
        assert LISTED.fullmatch(f"torchvision.models.{builder}"), builder
    for name in dir(models):
        if LISTED.fullmatch(f"torchvision.models.{name}") and callable(getattr(models, name)):
            known = name in models.list_models(module=models)
            assert known or issubclass(getattr(models, name), torch.nn.Module), name


OUT = (
    "torch.load", "torch.hub.load", "torch.utils.collect_env.run", "torch.nn.functional.torch.load",
    "torch.nn.modules.os.system", "torch.optim.lr_scheduler.warnings.sys.exit",
    "torchvision.models.get_model", "torchvision.models.get_weight",
    "torchvision.models.ResNet18_Weights", "torchvision.models.resnet.load_state_dict_from_url",
    "os.system", "posix.system", "subprocess.Popen", "builtins.eval", "joblib.load", "numpy.save",
    "logging.FileHandler", "shutil.rmtree", "hydra.utils.instantiate", "hydra.utils.get_method",
    "medexp.runs.files.write_text", "medexp.config.saved.add_config_dir",
    "medexp.models.weights.re.compile",
    "medexp.config.compose.instantiate", "medexp.data.unpack.unpack", "medexp.cli.dispatch.run",
    "medexp.data.phantom.pcam.write", "medexp.augment.base.torch.load",
    "optuna.samplers.TPESampler",
    "medexp.config.compose.SweepFolder", "setuptools._distutils.spawn.spawn", "toy.Net",
    "importlib.import_module", "runpy.run_path", "webbrowser.open", "sklearn.datasets.fetch_openml",
)  # fmt: skip


@pytest.mark.parametrize("target", OUT)
def test_a_way_out_is_refused_by_name_before_it_is_imported(target):
    said = refused({"model": {"_target_": target}}, rf"model\._target_={target}: not among what")
    assert said.startswith("run/config.yaml: ")
    assert f"trusted={target.partition('.')[0]}" in said


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({"second": {"model": {"_target_": "os.system"}}}, "second.model._target_"),
        ({"augment": {"_target_": "medexp.augment.Chain", "steps": [{"_target_": "os.system"}]}},
         "augment.steps.0._target_"),
        ({"dataset": {"phantom": "shutil.rmtree"}}, "dataset.phantom"),
        ({"dataset": {"phantom": "medexp.models.pcam.NativeCNN"}}, "dataset.phantom"),
        ({"second": {"dataset": {"phantom": "os.system"}}}, "second.dataset.phantom"),
        ({"metrics": {"mine": "os.system"}}, "metrics.mine"),
        ({"observers": {"diary": "evil.Diary"}}, "observers.diary"),
        ({"tta": {"_target_": "os.system"}}, "tta._target_"),
        ({"explain": {"_target_": "os.system"}}, "explain._target_"),
        ({"paper": {"base": {"model._target_": "os.system"}}}, "paper.base.model._target_"),
    ],
)  # fmt: skip
def test_a_target_is_found_wherever_it_stands(content, key):
    refused(content, rf"{key}=[\w.]+: not among what")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"hydra": {"run": {}}}, "hydra: no such key of a run's config"),
        ({"defaults": ["schema"]}, "defaults: no such key of a run's config"),
        ({"trusted": ["os"]}, "trusted: no such key of a run's config"),
        ({"model": {"width": "${oc.env:HOME}"}}, r"model.width=\${oc.env:HOME}: an interpolation"),
        ({"model": {"x": [{"y": "a${seed}"}]}}, "model.x.0.y=.*an interpolation"),
        ({"model": {"${oc.env:HOME}": 1}}, "the key .*an interpolation"),
        ({"names": {"model": "\x1b]0;x\x07"}}, r"names.model=\\x1b\]0;x\\x07: holds control"),
        ({"model": {"_target_": 3}}, "model._target_=3: no dotted path"),
        ({"model": {"_target_": ["os.system"]}}, "no dotted path"),
        ({"model": {"_target_": "os"}}, "_target_=os: no dotted path"),
        ({"model": {"_target_": "torch.nn.Linear\n"}}, "no dotted path"),
        ({"model": {"x": b"1"}}, "model.x: a bytes, which no config"),
        ({"paper": {"base": {"hydra.searchpath": "[file:///x]"}}}, "no setting of a run"),
        ({"paper": {"rows": [{"run": {"+hydra.x": 1}}]}}, "no setting of a run"),
        ({"paper": {"rows": [{"run": {"recipe": "../../x"}}]}}, "no name of an option of recipe"),
        ({"paper": {"rows": [{"run": {"+recipe": "../../x"}}]}}, "no name of an option of recipe"),
        ({"paper": {"rows": [{"run": {"model@x": "native1"}}]}}, "no setting of a run"),
        ({"paper": {"before": {"a": {"run": {"model": "/x"}}}}}, "no name of an option of model"),
        ({"paper": {"budgets": {"smoke": {"model": "{_target_:os.system}"}}}}, "no name of an opt"),
        ({"paper": {"rows": [{"run": {"model.x": "{_target_:os.system}"}}]}}, "inside of a comma"),
        ({"paper": {"audit": [{"overrides": ["model._target_=os.system"]}]}}, "inside of a comma"),
        ({"paper": {"audit": [{"overrides": ["hydra.searchpath=[x]"]}]}}, "no setting of a run"),
    ],
)  # fmt: skip
def test_what_a_config_may_not_hold(content, message):
    refused(content, message)


def test_torchvision_fetches_nothing_for_a_config():
    node = {"_target_": "torchvision.models.resnet18"}
    check_saved({"model": {**node, "weights": "imagenet", "num_classes": 2}}, FILE)  # medexp's key
    for key in ("weights", "weights_backbone", "pretrained", "_args_"):
        inner = {"_target_": "torch.nn.Sequential", "_args_": [{**node, key: "DEFAULT"}]}
        refused({"model": inner}, f"{key}=DEFAULT: torchvision would fetch weights")
    refused({"model": {**node, "pretrained": True}}, "torchvision would fetch weights")


# ---------------------------------------------------------------- what widens it


def test_a_folder_that_is_named_widens_it(monkeypatch):
    content = {"model": {"_target_": "toy.Net"}, "dataset": {"_target_": "toy.load"}}
    refused(content, r"made with --config-dir /somewhere\. If that", made_with="/somewhere")
    monkeypatch.setenv("MEDEXP_CONFIG_DIR", str(MINE))
    check_saved(content, FILE)
    for way in ("toy.np.save", "toy.torch.load", "toy.nn.Module", "toy.Dataset", "toy.nothing"):
        refused({"model": {"_target_": way}}, f"{way}: not among what")


def test_what_a_folder_defines_is_read_off_its_files_not_imported(tmp_path):
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack/__init__.py").write_text(
        "from joblib import load\nfrom .net import Net as Mine\nfrom .net import *\nimport os\n"
        "raise SystemExit\n"
    )
    (tmp_path / "pack/net.py").write_text(
        "from os import system\nclass Net: pass\nopen_ = open\n"
        "try:\n    def build(): pass\nexcept ImportError:\n    build = None\n"
        "def replaced(): pass\nfrom subprocess import run as replaced\n"
    )
    (tmp_path / "os.py").write_text("def system(x): pass\n")
    (tmp_path / "torch.py").write_text("def load(x): pass\n")
    (tmp_path / "broken.py").write_text("def x(:\n")
    there = ("pack.Mine", "pack.Net", "pack.net.Net", "pack.build")
    assert [name for name in there if not defined_in(tmp_path, name)] == ["pack.build"]
    for name in (
        *("pack.load", "pack.os.system", "pack.net.system", "pack.net.open_", "pack.net.replaced"),
        *("os.system", "torch.load", "broken.x", "none.x", "pack.net.build", "pack"),
    ):
        assert not defined_in(tmp_path, name), name


def test_packages_are_trusted_by_the_command_line_alone(monkeypatch):
    content = {"metrics": {"mine": "sklearn.metrics.hinge_loss"}}
    assert set_trusted(["a=1", "trusted=[sklearn.metrics,'numpy']", "b=2"]) == ["a=1", "b=2"]
    assert os.environ["MEDEXP_TRUSTED"] == "sklearn.metrics,numpy"
    check_saved(content, FILE)
    with pytest.raises(ConfigError, match=r"is of .*, which is not in trusted=sklearn\.metrics"):
        check_saved({"metrics": {"mine": "sklearn.metrics._ranking.warnings.warn"}}, FILE)
    refused({"metrics": {"mine": "sklearn.datasets.load_files"}}, "not among what")
    assert set_trusted(["a=1"]) == ["a=1"]  # what the environment says is dropped
    refused(content, "not among what")
    for wrong in ("trusted=", "trusted=os.*", "trusted=[]", "trusted=a b"):
        with pytest.raises(ConfigError, match="is no package"):
            set_trusted([wrong])


def test_the_list_follows_the_options():
    """A network joins the list by its option in conf/, so that there is one place to add it."""
    listed = trust._own_targets(False)
    assert "medexp.models.pcam.NativeCNN" in listed and "optuna.samplers.TPESampler" not in listed
    assert trust._own_targets(True) == {
        line.split()[1]
        for file in (conf_dir() / "dataset").glob("*.yaml")
        for line in file.read_text().splitlines()
        if line.startswith("phantom: ")
    }
