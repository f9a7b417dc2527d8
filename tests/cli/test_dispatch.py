"""The command line: exit codes, messages, help, completion, sweeps, the run directory."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from medexp.cli import dispatch as cli
from medexp.config.compose import compose, compose_node
from medexp.config.groups import options
from medexp.config.targets import check_node
from medexp.report.table.load import rescore
from tests.conftest import MINE, ROOT, read

RUN_FILES = {
    ".hydra", "config.yaml", "status.json", "history.csv", "metrics.json", "predictions.csv",
    "table.md", "table.csv", "plots", "checkpoints", "provenance.json", "record.json", "run.log",
    "split.csv",
}  # fmt: skip


@pytest.mark.plots
def test_train_writes_the_run_directory_of_the_contract(toy, medexp):
    run = toy()
    assert re.fullmatch(r"outputs/toy-toynet/\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-\d{6}", str(run))
    assert {p.name for p in run.iterdir()} == RUN_FILES
    assert {p.name for p in (run / "checkpoints").iterdir()} == {"best.pt", "last.pt"}
    assert read(run / "status.json")["state"] == "done"
    header = (run / "history.csv").read_text().splitlines()[0]
    assert header == (
        "epoch,lr,train_loss,train_accuracy,val_loss,val_accuracy,val_auc,val_f1,val_precision,"
        "val_recall,seconds,images_per_s"
    )
    metrics = read(run / "metrics.json")
    assert metrics["dataset"] == "toy" and metrics["model"] == "toynet"
    assert metrics["test"]["n"] == 48 and metrics["val"]["n"] == 48
    provenance = read(run / "provenance.json")
    assert provenance["seed"] == 0 and len(provenance["data"]["train"]["blake2b"]) == 32
    assert provenance["config_dir"] == str(MINE)
    assert provenance["command"].startswith("medexp train --config-dir")
    assert str(run) in medexp.out and "epoch 3/3" in medexp.err


def test_metrics_come_back_from_predictions_alone(toy):
    run = toy()
    again, metrics = rescore(run), read(run / "metrics.json")
    for split in ("val", "test"):
        for key, value in metrics[split].items():
            if isinstance(value, float):
                assert again[split][key] == pytest.approx(value, abs=1e-9)


def test_eval_repeats_the_test_metrics_exactly(toy, medexp):
    run = toy()
    assert medexp("eval", "--config-dir", MINE, f"run={run}") == 0
    (folder,) = (run / "eval").iterdir()
    assert read(folder / "metrics.json")["test"] == read(run / "metrics.json")["test"]
    assert (
        medexp(
            "eval", "--config-dir", MINE, f"run={run}", "split=train", "dataset=toy", "dataset.n=64"
        )
        == 0
    )
    scored = read(max((run / "eval").iterdir()) / "metrics.json")
    assert scored["train"]["n"] == 64 and scored["split"] == "train"
    # The table is of the split that was asked for, and says so.
    assert "Results on the train split · TRAIN SPLIT" in medexp.out
    assert f"{scored['train']['accuracy']:.4f}" in medexp.out


def test_same_seed_same_run(toy):
    first, second, other = toy(), toy(), toy("seed=1")
    timed = ("seconds", "images_per_s")

    def untimed(run):
        lines = [line.split(",") for line in (run / "history.csv").read_text().splitlines()]
        kept = [i for i, name in enumerate(lines[0]) if name not in timed]
        return [[line[i] for i in kept] for line in lines]

    assert untimed(first) == untimed(second) != untimed(other)
    predictions = [(r / "predictions.csv").read_bytes() for r in (first, second, other)]
    assert predictions[0] == predictions[1] != predictions[2]
    one, two = (
        torch.load(r / "checkpoints/last.pt", weights_only=True)["model"] for r in (first, second)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "trian: no such command. Did you mean 'train'?"),
        (["train", "model=nativ3"], "model=nativ3: no such option. Did you mean 'native3'?"),
        (["train", "modle=native3"], "modle: no such key. Did you mean 'model'?"),
        (["train", "trainer.epoch=3"], "trainer.epoch: no such key. Did you mean 'epochs'?"),
        (["train", "device=cpu"], "device: no such key. Did you mean 'trainer.device'?"),
        (["train", "+sede=3"], "sede: no such key. Did you mean 'seed'?"),
        (["train", "trainer.epochs=many"], "trainer.epochs: Value 'many' of type 'str'"),
        (["train", "optimizer.lrr=1"], "optimizer.lrr: no such key. Did you mean 'lr'?"),
        (["train", "+model.kernel=[1]"], "model.kernel: not an argument of"),
        (["train", "optimizer.lr=fast"], "optimizer.lr='fast': must be float"),
        (["train", "trainer.device=gpu"], "trainer.device=gpu: no such choice."),
        (["train", "trainer.amp=f16"], "trainer.amp=f16: no such choice. Did you mean 'fp16'?"),
        (["train", "trainer.monitor=val_acc"], "Did you mean 'val_auc'?"),
        (["train", "trainer.epochs=0"], "trainer.epochs=0: must be 1 or more"),
        (
            ["train", "dataset=pcam", "source=phantom", "source.size=3"],
            "source.size=3: must be 16 or more",
        ),
        (["train", "-m", "model=toynet,nativ3"], "model=nativ3: no such option"),
        (["train", "optimizer.lr=[1"], "optimizer.lr=[1: cannot be parsed"),
        (["train", "resume=nowhere"], "resume=nowhere: no config.yaml there"),
        (["train", "explain=saliency"], "explain: of a finished run. Use medexp eval"),
        (["eval"], "run: missing. Give the run directory"),
        (["eval", "run=nowhere"], "run=nowhere: no config.yaml there"),
        (["train", "model._target_=toy.Nett"], "toy has no 'Nett'"),
        (["train", "model._target_=toi.Net"], "no module 'toi'"),
        (["data", "check", "datasett=pcam"], "datasett: no such"),
    ],
)
def test_wrong_usage_exits_with_2_and_names_key_and_remedy(medexp, arguments, message):
    command, *rest = arguments
    own = ["dataset=toy", "model=toynet"]
    if any(
        argument.startswith(("dataset", "model=", "modle", "resume", "run=")) for argument in rest
    ):
        own = own[:1] if any(argument.startswith("model=") for argument in rest) else []
    if command == "train" and "+model" not in " ".join(rest):
        rest = ["--config-dir", str(MINE), *own, *rest]
    assert medexp(command, *rest) == 2, medexp.err
    assert message in medexp.err
    assert "Traceback" not in medexp.err


def test_a_misspelt_key_in_a_users_yaml_is_refused_by_name(medexp, workplace):
    folder = workplace / "own" / "experiment"
    folder.mkdir(parents=True)
    (folder / "typo.yaml").write_text("# @package _global_\ntrainer:\n  batchsize: 8\n")
    (folder / "top.yaml").write_text("# @package _global_\ntrainr:\n  batch_size: 8\n")
    (workplace / "own" / "optimizer").mkdir()
    (workplace / "own" / "optimizer" / "bad.yaml").write_text(
        "_target_: torch.optim.SGD\n_partial_: true\nlr: 0.1\nmomentun: 0.9\n"
    )
    own = ("--config-dir", workplace / "own", "source=phantom")
    assert medexp("train", *own, "experiment=typo") == 2
    assert "trainer.batchsize: no such key" in medexp.err
    assert "Did you mean 'batch_size'?" in medexp.err
    assert medexp("train", *own, "experiment=top") == 2
    assert "trainr: no such key" in medexp.err and "Did you mean 'trainer'?" in medexp.err
    assert medexp("train", *own, "optimizer=bad") == 2
    assert "optimizer.momentun: not an argument of torch.optim.SGD" in medexp.err
    assert "Did you mean 'momentum'?" in medexp.err


def test_swapping_a_group_leaves_no_stray_key(medexp):
    for group in ("optimizer", "schedule", "augment"):
        for option in options(group):
            check_node(group, compose_node(group, option))
    assert "momentum" not in compose(["optimizer=adam"]).optimizer


def test_a_defect_is_a_failed_run_with_its_traceback_in_the_log(toy, medexp, monkeypatch):
    def broken(*arguments, **named):
        raise ZeroDivisionError("a defect of ours")

    monkeypatch.setattr("medexp.jobs.train.fit", broken)
    run = toy(code=1)
    assert "a defect of ours" in medexp.err and "Traceback" not in medexp.err
    assert "This is a defect, of medexp or of a module" in medexp.err
    status = read(run / "status.json")
    assert status["state"] == "failed" and "a defect of ours" in status["reason"]
    assert "Traceback" in (run / "run.log").read_text()
    toy("debug=true", code=1)
    assert "Traceback" in medexp.err


REFUSED = {
    ("optimizer=sgd", "optimizer.lr=-1"): "optimizer.lr=-1: torch.optim.SGD does not take that "
    "(ValueError: Invalid learning rate: -1)",
    ("optimizer=momentum", "optimizer.momentum=-1"): "optimizer.momentum=-1: torch.optim.SGD",
    ("optimizer=sgd", "optimizer.nesterov=true"): "optimizer.nesterov=True: torch.optim.SGD does "
    "not take that (ValueError: Nesterov momentum requires a momentum",
    ("optimizer=adam_torch", "optimizer.betas=[0.9,2]"): "optimizer.betas=[0.9, 2]: torch.optim",
    ("optimizer=adam_torch", "optimizer.eps=-1"): "optimizer.eps=-1: torch.optim.Adam",
    ("+model.rate=2",): "model.rate=2: toy.Net does not take that (ValueError: dropout probability",
    (
        "dataset.size=2",
    ): "model._target_=toy.Net: does not take images of 2x2x3 (RuntimeError: Calc",
}


@pytest.mark.parametrize("overrides", REFUSED)
def test_values_that_torch_refuses_are_wrong_settings(toy, medexp, overrides):
    run = toy(*overrides, code=2)
    text = " ".join(medexp.err.split())
    assert REFUSED[overrides] in text and "defect" not in text and "Traceback" not in text
    assert "Traceback" in (run / "run.log").read_text()
    assert not (run / "history.csv").exists()


def test_a_loss_that_is_no_number_names_the_step_and_keeps_the_last_good_epoch(toy, medexp):
    run = toy("model=exploding", "trainer.batch_size=8", code=1)
    assert "The loss is nan at epoch 2, step 4 of 12" in medexp.err
    assert "last.pt holds the last good epoch, 1" in medexp.err
    assert (run / "checkpoints/last.pt").exists()
    assert read(run / "status.json")["state"] == "failed"


def test_resumed_equals_uninterrupted(toy, medexp):
    whole = toy("trainer.epochs=4")
    part = toy("trainer.epochs=2")
    assert medexp("train", f"resume={part}", "trainer.epochs=4", "--config-dir", MINE) == 0
    assert (part / "predictions.csv").read_bytes() == (whole / "predictions.csv").read_bytes()
    assert len((part / "history.csv").read_text().splitlines()) == 5
    assert read(part / "metrics.json")["test"] == read(whole / "metrics.json")["test"]


def test_a_run_is_never_written_over(toy, medexp):
    toy("hydra.run.dir=kept")
    before = Path("kept/metrics.json").read_bytes()
    toy("hydra.run.dir=kept", "seed=5", code=2)
    assert "kept: holds a run already" in medexp.err and "resume=kept" in medexp.err
    assert Path("kept/metrics.json").read_bytes() == before


@pytest.mark.parametrize("value", ["inf", "nan", "-inf"])
def test_a_number_that_is_none_is_refused(toy, medexp, value):
    toy("optimizer=adam", f"optimizer.lr={value}", code=2)
    assert f"optimizer.lr={value}: need a finite number" in medexp.err


def test_a_preview_refuses_what_a_run_does(medexp):
    words = ("dataset=toy", "model=toynet", "optimizer=sgd", "optimizer.lr=-1")
    assert medexp("train", "--config-dir", MINE, *words, "plot_schedule=true") == 2
    assert "optimizer.lr=-1: torch.optim.SGD does not take that" in medexp.err


def test_a_run_that_was_refused_does_not_occupy_its_folder(toy, medexp):
    toy("hydra.run.dir=o", "+model.dropout=0", code=2)
    assert read("o/status.json")["state"] == "failed"
    toy("hydra.run.dir=o", "optimizer.lr=-1", "optimizer=sgd", code=2)
    toy("hydra.run.dir=o")
    assert read("o/status.json")["state"] == "done"
    assert "optimizer.lr=-1" not in Path("o/run.log").read_text()
    toy("hydra.run.dir=o", code=2)
    assert "holds a run already" in medexp.err


def test_sweep_ends_in_one_table_and_survives_a_failed_job(medexp, toy):
    alone = toy("trainer.epochs=1", "model.width=4")
    sweep = ("--config-dir", MINE, "dataset=toy", "trainer.epochs=1", "trainer.resamples=20")
    code = medexp("train", "-m", *sweep, "model=toynet", "model.width=8,0,4")
    assert code == 1
    (folder,) = Path("outputs/sweeps").iterdir()
    jobs = sorted(p for p in folder.iterdir() if p.is_dir() and p.name != "plots")
    assert [p.name for p in jobs] == ["0-toy-toynet", "1-toy-toynet", "2-toy-toynet"]
    states = [read(p / "status.json") for p in jobs]
    assert [s["state"] for s in states] == ["done", "failed", "done"]
    assert states[1]["reason"]
    table = (folder / "table.md").read_text()
    assert "width=8" in table and "width=4" in table and "failed" in table
    assert "1 of 3 jobs failed" in medexp.err
    # A job of a sweep starts from a clean state: the same numbers as alone.
    assert read(jobs[2] / "metrics.json")["test"] == read(alone / "metrics.json")["test"]


@pytest.mark.plots
def test_phantom_run_says_so_everywhere(medexp):
    code = medexp(
        "train", "source=phantom", "source.size=64", "trainer.epochs=1", "trainer.resamples=20"
    )
    assert code == 0, medexp.err
    (run,) = Path("outputs/pcam-native3").iterdir()
    metrics = read(run / "metrics.json")
    # An epoch of so few patches makes a network that calls all of them the same.
    assert set(metrics["marks"]) - {"CONSTANT"} == {"PHANTOM", "PARTIAL", "DEVIATES"}
    assert "1 of 1,000 epochs" in metrics["marks"]["PARTIAL"]
    for text in (medexp.out, (run / "table.md").read_text(), (run / "table.csv").read_text()):
        assert "PHANTOM" in text
    assert "0.9247" in medexp.out  # Table 4's accuracy of #3, beside ours
    *table, folder = medexp.out.splitlines()
    assert folder == str(run) and max(map(len, table)) <= 80


def test_missing_data_names_files_source_and_phantoms(medexp):
    assert medexp("train", "dataset=pcam") == 1
    for part in ("camelyonpatch_level_2_split_train_x.h5", "data/pcam", "CC0", "source=phantom"):
        assert part in medexp.err


@pytest.mark.real_data
@pytest.mark.parametrize("dataset", ["pcam", "pcam_kaggle"])
def test_real_patches_train_and_evaluate(medexp, real_data, monkeypatch, dataset):
    monkeypatch.setenv("MEDEXP_DATA", str(real_data))
    arguments = (f"dataset={dataset}", "model=native3", "trainer.epochs=1", "trainer.resamples=20")
    assert medexp("train", *arguments) == 0, medexp.err
    (run,) = Path(f"outputs/{dataset}-native3").iterdir()
    metrics = read(run / "metrics.json")
    assert "PHANTOM" not in metrics["marks"] and "PARTIAL" in metrics["marks"]
    assert metrics["test"]["n"] == (24 if dataset == "pcam" else 5)


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["train"],
        ["eval"],
        ["predict"],
        ["models"],
        ["datasets"],
        ["data"],
        ["report"],
        ["doctor"],
        ["export"],
    ],
)
def test_help_helps_and_imports_no_torch(command):
    script = f"""
import sys
sys.argv = {["medexp", *command, "--help"]!r}
from medexp.cli import dispatch as cli
from medexp.config.compose import compose, compose_node
from medexp.config.groups import options
from medexp.config.targets import check_node
try:
    cli.main()
except SystemExit as stop:
    assert not stop.code, stop.code
assert "torch" not in sys.modules and "sklearn" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert f"  medexp {' '.join(command) or 'train'}" in done.stdout, "an example"
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_version(medexp):
    assert medexp("--version") == 0
    assert re.fullmatch(r"medexp \d+\.\d+\.\d+\n", medexp.out)


def query(line):
    environment = {**os.environ, "COMP_LINE": line, "COMP_POINT": str(len(line))}
    script = (
        "import sys; sys.argv = ['medexp', '-sc', 'query=bash']\n"
        "from medexp.cli import dispatch as cli\n"
        "try: cli.main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_tab_completion_behind_a_subcommand():
    assert "train" in query("medexp ")
    assert {"model=native1", "model=native3"} <= set(query("medexp train model="))
    assert {"optimizer=adam", "optimizer=sgd"} <= set(query("medexp train -m optimizer="))
    assert "trainer.epochs=" in query("medexp train trainer.ep")
    assert "dataset=pcam" in query("medexp data check dataset=")
    assert {"run=", "images=", "out=", "tta="} <= set(query("medexp predict "))
    assert query("medexp predict run=a trainer.d") == ["trainer.device="]
    assert "tta=flips" in query("medexp predict run=a tta=f")
    assert "images=tests/mine/" in query("medexp predict images=tests/m")
    assert "run=tests/mine/" in query("medexp predict run=tests/m")
    assert {"run=", "format=", "out="} <= set(query("medexp export "))
    assert "format=onnx" in query("medexp export run=a format=o")


def test_the_documented_line_installs_completion_in_bash(tmp_path):
    """The line of the README, in a real bash, with the console script on PATH."""
    script = tmp_path / "medexp"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m medexp "$@"\n')
    script.chmod(0o755)
    text = f"""
export PATH={tmp_path}:$PATH
eval "$(medexp -sc install=bash)"
complete -p medexp
COMP_LINE='medexp train model=native3_' COMP_POINT=27 COMP_CWORD=2
hydra_bash_completion
echo "got ${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, cwd=ROOT)
    assert "hydra_bash_completion medexp" in done.stdout, done.stderr
    assert "got model=native3_counted" in done.stdout, done.stderr


def test_ctrl_c_saves_and_says_how_to_go_on(workplace):
    """A real process, a real SIGINT in the middle of an epoch; resumed equals uninterrupted."""
    arguments = (
        "train", "--config-dir", str(MINE), "dataset=toy", "dataset.n=4000", "model=toynet",
        "trainer.epochs=200", "trainer.device=cpu", "trainer.threads=1", "trainer.resamples=20",
    )  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "medexp", *arguments, "hydra.run.dir=cut"],
        stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    for _ in range(2):
        line = process.stderr.readline()
        while "epoch " not in line:
            line = process.stderr.readline()
            assert process.poll() is None
    time.sleep(0.05)
    process.send_signal(2)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Go on with: medexp train resume=cut" in err and "state is saved" in err
    assert read("cut/status.json")["state"] == "failed"
    done = len(Path("cut/history.csv").read_text().splitlines()) - 1
    last = f"trainer.epochs={done + 2}"
    assert cli.run(["train", "resume=cut", last, "--config-dir", str(MINE)]) == 0
    assert cli.run([*arguments, "hydra.run.dir=whole", last]) == 0
    assert Path("cut/predictions.csv").read_bytes() == Path("whole/predictions.csv").read_bytes()


def test_models_computes_its_verdicts(medexp):
    assert medexp("models", "--json") == 0
    rows = {row["model"]: row for row in json.loads(medexp.out)}
    for name, count in zip((1, 2, 3, 4), (451791, 376391, 511891, 421491), strict=True):
        assert rows[f"native{name}_counted"]["trainable"] == count
        assert rows[f"native{name}_counted"]["verdict"] == "agrees"
        row = rows[f"native{name}"]
        assert row["verdict"] == f"differs ({row['trainable'] - count:+,})"
    assert {*rows} == {*options("model")} and len(rows) >= 18
    for row in rows.values():
        assert row["verdict"] and row["multiply_adds"] > 0 and row["trainable"] <= row["total"]


def test_models_of_a_users_own_are_listed_too(medexp, monkeypatch):
    few = ["native1_counted", "toynet"]
    monkeypatch.setattr("medexp.cli.models.options", lambda group, arguments: few)
    assert medexp("models", "--config-dir", MINE) == 0
    assert "agrees" in medexp.out and "toynet" in medexp.out
    assert max(map(len, medexp.out.splitlines())) <= 80


def test_datasets_lists_source_and_licence(medexp):
    assert medexp("datasets") == 0
    assert "PatchCamelyon" in medexp.out and "CC0" in medexp.out
    assert max(map(len, medexp.out.splitlines())) <= 80


def test_models_prints_layers_as_keras_does(medexp):
    assert medexp("models", "native3_counted") == 0
    for text in (
        "features.conv1 (Conv2dSame)",
        "48, 48, 30",
        "5,790",
        "agrees of 511,891 reported",
    ):
        assert text in medexp.out
    assert max(map(len, medexp.out.splitlines())) <= 80
    assert medexp("models", "nativ3") == 2
    assert "model=nativ3: no such choice. Did you mean 'native3'?" in medexp.err


@pytest.mark.parametrize("kind", ["saliency", "gradcam", "features"])
def test_explain_writes_pictures(toy, medexp, kind):
    run = toy("trainer.epochs=1")
    assert (
        medexp("eval", "--config-dir", MINE, f"run={run}", f"explain={kind}", "explain.n=2") == 0
    ), medexp.err
    (folder,) = (run / "eval").iterdir()
    pictures = list((folder / "explain").glob(f"{kind}-*.png"))
    assert pictures and all(p.stat().st_size > 2000 for p in pictures)
    assert medexp("eval", "--config-dir", MINE, f"run={run}", f"explain={kind}", "explain.n=0") == 2
    assert "explain.n=0" in medexp.err


def test_weights_and_stages_on_the_command_line(toy, medexp):
    first = toy("trainer.epochs=1")
    start = f"+model.weights={first}/checkpoints/best.pt"
    frozen = toy(start, "+model.stages.features.frozen=true", "trainer.epochs=1")
    assert "9 tensors loaded" in (frozen / "run.log").read_text()
    both = [
        torch.load(run / "checkpoints/best.pt", weights_only=True)["model"]
        for run in (first, frozen)
    ]
    for name in both[0]:
        same = torch.equal(both[0][name], both[1][name])
        assert same == name.startswith("features"), name
    assert medexp("eval", "--config-dir", MINE, f"run={frozen}") == 0
    counts = read(frozen / "metrics.json")["parameters"]
    assert counts["trainable"] < read(first / "metrics.json")["parameters"]["trainable"]
    toy("+model.stages.heads.l2=0.1", code=2)
    assert "model.stages.heads: no such stage. Did you mean 'head'?" in medexp.err
    toy("+model.weights=nowhere.pt", code=1)
    assert "model.weights=nowhere.pt: does not exist" in medexp.err


def test_volumes_train_and_are_explained_by_a_montage(medexp):
    own = ("--config-dir", MINE, "dataset=volumes", "model=slices")
    rest = ("trainer.epochs=1", "trainer.batch_size=4", "trainer.resamples=20")
    assert medexp("train", *own, *rest) == 0, medexp.err
    (run,) = Path("outputs/volumes-slices").iterdir()
    assert (
        medexp("eval", "--config-dir", MINE, f"run={run}", "explain=gradcam", "explain.n=1") == 0
    ), medexp.err
    (folder,) = (run / "eval").iterdir()
    assert list((folder / "explain").glob("gradcam-1*.png"))
    assert medexp("train", "--config-dir", MINE, "dataset=volumes", "model=native1") == 2
    assert "takes 2D images (height, width), not volumes" in medexp.err


def test_data_check_finds_what_falsifies(medexp):
    assert medexp("data", "check", "source=phantom", "source.size=64") == 0, medexp.err
    assert "Nothing found that would falsify" in medexp.out
    leaky = ("source=phantom", "source.size=256", "dataset.split=random")
    assert medexp("data", "check", *leaky) == 1
    assert "slides stand in both train and test" in medexp.out
    own = ("--config-dir", MINE, "dataset=toy")
    assert medexp("data", "check", *own, "--json") == 0


def test_report_of_runs(toy, medexp):
    first, second = toy(), toy("model.width=4")
    assert medexp("report", first, second) == 0
    assert "width" in medexp.out
    assert medexp("report", "tests-nowhere") == 1
    assert "tests-nowhere" in medexp.err
