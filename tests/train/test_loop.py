"""The loop: exactness, interruption, what is drawn when."""

import csv
import itertools
import os
import shutil
import signal
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from medexp import augment
from medexp.config.settings import Stage
from medexp.data.base import Dataset, Split
from medexp.errors import ConfigError, Interrupted, MedexpError
from medexp.jobs import build
from medexp.train import epochs, loop, losses, sampling, schedules, work
from medexp.train.epochs import epochs_within
from tests.conftest import MINE
from tests.train import kit
from tests.train.kit import weights


def data(n=70, classes=2, size=6):
    rng = np.random.default_rng(0)

    def split(n):
        labels = np.arange(n) % classes
        images = rng.integers(0, 120, (n, size, size, 3)).astype(np.uint8)
        images[np.arange(n), labels, 2:4] += 100
        return Split(images, labels.astype(np.int64), np.array([str(i) for i in range(n)]))

    return Dataset("toy", tuple("abcde"[:classes]), split(n), split(n // 2), split(n // 2))


def network(classes=2, size=6):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3),
        nn.Linear(8 * size * size, 1 if classes == 2 else classes),
    )  # fmt: skip


def fit(folder, net=None, dataset=None, **changes):
    net = net or network()
    return net, kit.fit(folder, net, dataset or data(), **changes)


def draws_of(n, augmentation, sampled=None, **when):
    labels = np.zeros(n, np.int64)
    return epochs.epoch_draws(labels, augmentation, sampled or sampling.Shuffle(), **when)


def test_the_loop_equals_a_plain_loop_written_out(tmp_path):
    """No augmentation, no dropout, SGD: the same weights as ten lines of plain PyTorch."""
    dataset, count = data(), 2
    bare = nn.Sequential(nn.Flatten(), nn.Linear(108, 1))
    net = nn.Sequential(nn.Flatten(), nn.Linear(108, 1))
    net.load_state_dict(bare.state_dict())
    lr = 0.05
    _, fitted = fit(
        tmp_path, net, dataset, optimizer=partial(torch.optim.SGD, lr=lr), epochs=count,
        monitor="val_loss", channels_last=False,
    )  # fmt: skip
    optimizer = torch.optim.SGD(bare.parameters(), lr=lr)
    for epoch in range(count):
        hits, losses = 0, 0.0
        order, _ = draws_of(70, augment.Identity(), seed=0, epoch=epoch)
        for index in order.split(16):
            x = torch.from_numpy(dataset.train.images)[index].permute(0, 3, 1, 2) / 255
            y = torch.from_numpy(dataset.train.labels)[index].float()
            optimizer.zero_grad()
            logits = bare(x)[:, 0]
            loss = nn.functional.binary_cross_entropy_with_logits(logits, y)
            loss.backward()
            losses += loss.item() * len(y)
            hits += int(((logits > 0) == (y > 0)).sum())
            optimizer.step()
        row = fitted.history[epoch]
        assert row["train_accuracy"] == hits / 70
        assert row["train_loss"] == pytest.approx(losses / 70, rel=1e-5)
    torch.testing.assert_close(net[1].weight, bare[1].weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 4])
def test_it_learns_and_keeps_the_best_epoch(tmp_path, classes):
    net, fitted = fit(tmp_path, network(classes), data(200, classes), epochs=6)
    assert fitted.best_value > 0.95 and len(fitted.history) == 6
    best = torch.load(tmp_path / "checkpoints/best.pt", weights_only=True)
    assert best["epoch"] == fitted.best_epoch
    assert torch.equal(weights(net), torch.cat([p.flatten() for p in best["model"].values()]))
    rows = (tmp_path / "history.csv").read_text().splitlines()
    values = [float(row.split(",")[6]) for row in rows[1:]]
    losses = [row["val_loss"] for row in fitted.history]
    best = min(range(6), key=lambda k: (-values[k], losses[k], -k))  # of a tie the lower loss
    assert best + 1 == fitted.best_epoch


def test_what_is_kept_is_the_best_epoch_and_not_the_last(tmp_path):
    """The last epoch's rate ruins the network."""

    def ruinous(lr, *, epoch):
        return lr if epoch < 2 else 100.0

    sgd = partial(torch.optim.SGD, lr=0.01)
    net, fitted = fit(tmp_path, optimizer=sgd, schedule=ruinous, monitor="val_loss")
    losses = [row["val_loss"] for row in fitted.history]
    assert fitted.best_epoch == losses.index(min(losses)) + 1 < 3
    best = torch.load(tmp_path / "checkpoints/best.pt", weights_only=True)
    last = torch.load(tmp_path / "checkpoints/last.pt", weights_only=True)
    assert (best["epoch"], best["value"]) == (fitted.best_epoch, fitted.best_value)
    assert all(torch.equal(value, best["model"][name]) for name, value in net.state_dict().items())
    assert not torch.equal(best["model"]["0.weight"], last["model"]["0.weight"])


def test_class_weights_are_of_the_training_loss_alone(tmp_path):
    """Keras' val_loss is without them."""
    weighted = losses.CrossEntropy(class_weights=[9.0, 0.1])
    dataset = data()
    net, fitted = fit(tmp_path, dataset=dataset, loss=weighted, epochs=1)
    x = torch.from_numpy(dataset.val.images).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        logits = net.eval()(x)[:, 0]
    plain = nn.functional.binary_cross_entropy_with_logits(
        logits, torch.from_numpy(dataset.val.labels).float()
    )
    assert fitted.history[0]["val_loss"] == pytest.approx(plain.item(), rel=1e-4)


def stop_after(calls):
    """An augmentation that sends this process SIGINT at its n-th batch."""

    class Stopping(augment.FlipsTurns):
        seen = 0

        def __call__(self, images, draws):
            self.seen += 1
            if self.seen == calls:
                os.kill(os.getpid(), signal.SIGINT)
            return super().__call__(images, draws)

    return Stopping()


EVERYTHING = {
    "schedule": partial(schedules.time, decay=0.1),
    "ema": 0.9,
    "clip_norm": 0.5,
    "accumulate": 2,
    "stages": {"0": Stage(l2=0.01), "5": Stage(l1=0.001)},
    "switch_at": 7,
    "switch_to": ["5"],
}


@pytest.mark.parametrize("recipe", [{}, EVERYTHING], ids=["plain", "everything"])
@pytest.mark.parametrize("calls", [1, 3, 5, 7, 8, 15])
def test_interrupted_anywhere_and_resumed_equals_uninterrupted(tmp_path, calls, recipe):
    flips = augment.FlipsTurns()
    whole, _ = fit(tmp_path / "whole", augment=flips, **recipe)
    with pytest.raises(Interrupted, match="the state is saved") as stop:
        fit(tmp_path / "cut", augment=stop_after(calls), **recipe)
    assert "medexp train resume=" in str(stop.value)
    again = network()
    torch.manual_seed(123)
    _, fitted = fit(tmp_path / "cut", again, augment=flips, resume=True, **recipe)
    assert torch.equal(weights(again), weights(whole))
    history = [
        (tmp_path / run / "history.csv").read_text().splitlines() for run in ("cut", "whole")
    ]
    assert [row.split(",")[:-2] for row in history[0]] == [
        row.split(",")[:-2] for row in history[1]
    ]
    assert len(fitted.history) == 3


def test_dropout_follows_from_seed_and_epoch_alone(tmp_path):
    """Whatever the generators were used for before; a resume at an epoch's end included."""
    runs = []
    for folder, drawn, seed in (("one", 1, 0), ("two", 2, 0), ("other", 1, 3)):
        net = network()
        torch.manual_seed(drawn)
        runs.append(fit(tmp_path / folder, net, seed=seed)[0])
    fit(tmp_path / "cut", epochs=1)
    net = network()
    torch.manual_seed(4)
    runs.append(fit(tmp_path / "cut", net, resume=True)[0])
    one, two, other, resumed = map(weights, runs)
    assert torch.equal(one, two) and torch.equal(one, resumed) and not torch.equal(one, other)


@pytest.mark.parametrize("last", [True, False])
def test_channels_last_is_of_the_weights_and_of_the_batches(tmp_path, last):
    seen = set()

    net = network()
    net[0].register_forward_pre_hook(
        lambda layer, inputs: seen.add(
            (layer.training, inputs[0].is_contiguous(memory_format=torch.channels_last))
        )
    )
    fit(tmp_path, net, channels_last=last, epochs=1)
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last) == last
    assert seen == {(True, last), (False, last)}


def test_a_half_done_epoch_is_not_resumed_with_other_batches(tmp_path):
    with pytest.raises(Interrupted):
        fit(tmp_path, augment=stop_after(2))
    with pytest.raises(ConfigError, match="trainer.batch_size=8: epoch 1 was begun with.*5 steps"):
        fit(tmp_path, network(), batch_size=8, resume=True)


def test_an_epochs_end_can_be_resumed_with_other_batches(tmp_path):
    fit(tmp_path, epochs=1)
    _, fitted = fit(tmp_path, network(), epochs=2, batch_size=8, resume=True)
    assert len(fitted.history) == 2


def test_signal_handlers_are_put_back(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    fit(tmp_path, epochs=1)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_signal_stops_at_once():
    with work.stop_requested() as came:
        assert not came()
        os.kill(os.getpid(), signal.SIGTERM)
        assert came()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_loss_that_is_no_number_stops_with_the_step_named(tmp_path):
    def bad(logits, labels):
        bad.calls += 1
        value = losses.cross_entropy(logits, labels)
        return value * float("inf") if bad.calls == 9 else value

    bad.calls = 0
    with pytest.raises(
        MedexpError, match=r"The loss is inf at epoch 2, step 3 of 5.*optimizer\.lr"
    ):
        fit(tmp_path, loss=bad)
    state = torch.load(tmp_path / "checkpoints/last.pt", weights_only=True)
    assert state["epoch"] == 1 and torch.isfinite(state["model"]["0.weight"]).all()


def test_draws_depend_on_seed_and_epoch_alone():
    flips = augment.FlipsTurns()
    order, draws = draws_of(50, flips, seed=1, epoch=2)
    torch.rand(5)
    again = draws_of(50, flips, seed=1, epoch=2)
    assert torch.equal(order, again[0]) and torch.equal(draws, again[1])
    assert sorted(order.tolist()) == list(range(50))
    assert not torch.equal(order, draws_of(50, flips, seed=2, epoch=1)[0])


def test_a_last_batch_of_one_joins_the_one_before():
    assert epochs.batch_cuts(33, 16) == [(0, 16), (16, 33)]
    assert epochs.batch_cuts(34, 16) == [(0, 16), (16, 32), (32, 34)]
    assert epochs.batch_cuts(3, 1) == [(0, 1), (1, 2), (2, 3)]
    assert epochs.batch_cuts(1, 16) == [(0, 1)]


def test_schedule_is_asked_before_every_step_with_epoch_and_iteration(tmp_path):
    asked = []

    def schedule(lr, *, epoch, iteration):
        asked.append((lr, epoch, iteration))
        return lr / (1 + iteration)

    fit(tmp_path, epochs=2, schedule=schedule)
    # Once more for each row of the history, with the epoch's last step.
    assert list(dict.fromkeys(asked)) == [(0.01, step // 5, step) for step in range(10)]
    lines = (tmp_path / "history.csv").read_text().splitlines()
    assert [float(line.split(",")[1]) for line in lines[1:]] == [0.01 / 5, 0.01 / 10]


def test_monitor_must_exist_and_be_defined(tmp_path):
    with pytest.raises(ConfigError, match=r"trainer\.monitor=val_acc: no such choice"):
        fit(tmp_path, monitor="val_acc")
    one = data()
    zeros = np.zeros_like(one.val.labels)
    one = Dataset(
        "toy", one.classes, one.train, Split(one.val.images, zeros, one.val.ids), one.test
    )
    with pytest.raises(MedexpError, match="undefined on this validation split"):
        fit(tmp_path, dataset=one)


def test_bf16_trains_to_the_same_place(tmp_path):
    _, full = fit(tmp_path / "full", epochs=6, dataset=data(200))
    _, half = fit(tmp_path / "half", epochs=6, dataset=data(200), precision=torch.bfloat16)
    assert abs(full.best_value - half.best_value) < 0.05


def test_too_little_memory_for_a_step_names_what_helps(tmp_path):
    class Large(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            if self.training:
                raise torch.OutOfMemoryError(
                    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0"
                )
            return self.inner(x)

    with pytest.raises(MedexpError) as caught:
        fit(tmp_path, Large())
    text = str(caught.value)
    assert "too small for a step: Tried to allocate 2.50 GiB. Set trainer.accumulate=2" in text
    assert len(text.splitlines()) <= 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", [None, torch.bfloat16, torch.float16])
def test_cuda_trains_to_the_same_place(tmp_path, precision):
    _, cpu = fit(tmp_path / "cpu", epochs=6, dataset=data(200))
    device = torch.device("cuda")
    _, gpu = fit(tmp_path / "gpu", epochs=6, dataset=data(200), device=device, precision=precision)
    assert abs(cpu.best_value - gpu.best_value) < 0.05


def rows_of(folder):
    """history.csv without its times."""
    return [row.split(",")[:-2] for row in (folder / "history.csv").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler"
)
def test_compiled_it_trains_the_same(tmp_path, monkeypatch):
    """Dropout, BatchNorm, average, parts, a switch of stages and a resume among it."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    # Adam makes whole steps of the rounding in gradients that are zero (a bias before BatchNorm).
    recipe = EVERYTHING | SGD
    flips = augment.FlipsTurns()
    plain, _ = fit(tmp_path / "plain", augment=flips, **recipe)
    net, _ = fit(tmp_path / "compiled", augment=flips, **recipe, compile=True)
    torch.testing.assert_close(weights(net), weights(plain), rtol=1e-4, atol=1e-5)
    (header, *first), (_, *second) = rows_of(tmp_path / "plain"), rows_of(tmp_path / "compiled")
    assert header.count("val_loss") == 1 and len(first) == 3
    np.testing.assert_allclose(np.array(second, float), np.array(first, float), rtol=1e-3)
    for name in ("best", "last"):
        states = [
            torch.load(tmp_path / run / f"checkpoints/{name}.pt", weights_only=True)
            for run in ("plain", "compiled")
        ]
        assert list(states[0]["model"]) == list(states[1]["model"]) == list(plain.state_dict())
    assert states[0]["average"].keys() == states[1]["average"].keys()
    # Begun without and gone on with: a checkpoint is of the network, not of how it is run.
    with pytest.raises(Interrupted):
        fit(tmp_path / "cut", augment=stop_after(8), **recipe)
    again, _ = fit(tmp_path / "cut", network(), augment=flips, resume=True, **recipe, compile=True)
    torch.testing.assert_close(weights(again), weights(plain), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_compiled_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, "no-such-compiler"))
    with pytest.raises(
        ConfigError,
        match=r"trainer.compile=true: Sequential cannot.*No working C\+\+ compiler.*compile=false",
    ):
        fit(tmp_path, linear(), compile=True)


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(108, 1))


SGD = {"optimizer": partial(torch.optim.SGD, lr=0.05), "monitor": "val_loss"}


def test_an_observer_gets_each_row_and_the_state_after_it(tmp_path):
    seen = []
    _, fitted = fit(
        tmp_path, linear(), **SGD, epochs=2,
        observers=[lambda row, state: seen.append((row, state.epoch, state.step))],
    )  # fmt: skip
    assert seen == [(fitted.history[0], 1, 0), (fitted.history[1], 2, 0)]


class Bar:
    """Stands in for progress.Training: what it was made with, the images of its steps, its rows."""

    made, images, rows = [], [], []

    def __init__(self, **options):
        self.made.append(options)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def step(self, images):
        self.images.append(images)

    def epoch(self, row, monitor):
        self.rows.append((row["epoch"], monitor))


def test_a_second_phase_goes_on_counting_where_the_first_ended(tmp_path, monkeypatch):
    first = fit(tmp_path / "first", linear(), **SGD, epochs=2)[1].history
    messages = []
    monkeypatch.setattr(loop.log_file, "info", messages.append)
    for name in ("made", "images", "rows"):
        monkeypatch.setattr(Bar, name, [])
    monkeypatch.setattr("medexp.train.progress.Training", Bar)
    phase = {"earlier": tuple(first), **SGD}
    fit(tmp_path / "second", linear(), **phase, epochs=1)
    _, fitted = fit(tmp_path / "second", linear(), **phase, epochs=2, resume=True)
    assert [(row["phase"], row["epoch"]) for row in fitted.history] == [(2, 3), (2, 4)]
    assert fitted.best_epoch in (3, 4)
    with (tmp_path / "second" / "history.csv").open(newline="") as file:
        rows = [(row["phase"], row["epoch"]) for row in csv.DictReader(file)]
    assert rows == [("", "1"), ("", "2"), ("2", "3"), ("2", "4")]
    assert [message.split("  ")[0] for message in messages] == ["epoch 3/3", "epoch 4/4"]
    assert Bar.made == [
        {"epochs": 3, "images_per_epoch": 70, "done": 2},
        {"epochs": 4, "images_per_epoch": 70, "done": 3},
    ]
    assert Bar.images == [16, 16, 16, 16, 6] * 2
    assert Bar.rows == [(3, "val_loss"), (4, "val_loss")]


def test_seconds_are_of_all_sessions_and_a_rate_of_this_ones_images(tmp_path, monkeypatch):
    """A clock that ticks when it is read: in an epoch thrice, up to an interruption once."""
    ticks = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: float(next(ticks)))
    monkeypatch.setattr("medexp.train.loop.time", clock)
    with pytest.raises(Interrupted):
        fit(tmp_path, augment=stop_after(7))
    state = torch.load(tmp_path / "checkpoints/last.pt", weights_only=True)
    assert (state["epoch"], state["step"], state["seconds"]) == (1, 2, 3 + 1)
    _, fitted = fit(tmp_path, network(), augment=augment.FlipsTurns(), resume=True)
    assert fitted.seconds == 3 + 1 + 3 + 3
    assert [row["images_per_s"] for row in fitted.history] == [70, 70 - 32, 70]
    assert [row["seconds"] for row in fitted.history] == [2, 2, 2]


def test_a_batch_in_parts_is_the_same_step(tmp_path):
    whole, _ = fit(tmp_path / "whole", linear(), **SGD, batch_size=16)
    parts, _ = fit(tmp_path / "parts", linear(), **SGD, batch_size=16, accumulate=3)
    torch.testing.assert_close(weights(parts), weights(whole), rtol=1e-5, atol=1e-6)
    first, second = (
        (tmp_path / n / "history.csv").read_text().splitlines()[1] for n in ("whole", "parts")
    )
    assert np.allclose(*([float(x) for x in r.split(",")[:-2]] for r in (first, second)), atol=1e-5)


def test_clipping_is_torchs_over_all_gradients(tmp_path):
    net, bare, dataset = linear(), linear(), data()
    fit(tmp_path, net, dataset, **SGD, epochs=1, clip_norm=0.01, channels_last=False)
    optimizer = torch.optim.SGD(bare.parameters(), lr=0.05)
    order, _ = draws_of(70, augment.Identity(), seed=0, epoch=0)
    for index in order.split(16):
        x = torch.from_numpy(dataset.train.images)[index].permute(0, 3, 1, 2) / 255
        y = torch.from_numpy(dataset.train.labels)[index].float()
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(bare(x)[:, 0], y).backward()
        norm = torch.cat([p.grad.flatten() for p in bare.parameters()]).norm()
        for p in bare.parameters():
            p.grad *= min(1.0, 0.01 / (norm.item() + 1e-6))
        optimizer.step()
    torch.testing.assert_close(weights(net), weights(bare), rtol=1e-5, atol=1e-7)


def test_the_moving_average_is_what_is_validated_and_kept(tmp_path):
    """v <- d v + (1 - d) w after every step, from the first step's w on (torch's rule)."""
    seen = []

    class Watched(torch.optim.SGD):
        def step(self, *arguments):
            super().step(*arguments)
            seen.append(torch.cat([p.detach().flatten() for p in self.param_groups[0]["params"]]))

    net, fitted = fit(
        tmp_path,
        linear(),
        optimizer=partial(Watched, lr=0.05),
        monitor="val_loss",
        epochs=2,
        ema=0.8,
    )
    average, kept = seen[0], []
    for step, current in enumerate(seen):
        average = average if step == 0 else 0.8 * average + 0.2 * current
        if step % 5 == 4:
            kept.append(average)
    torch.testing.assert_close(
        torch.cat([p.detach().flatten() for p in net.parameters()]), kept[fitted.best_epoch - 1]
    )


@pytest.mark.parametrize(("limit", "epochs"), [(3, 1), (5, 1), (7, 2), (100, 3)])
def test_iterations_can_be_limited(tmp_path, limit, epochs):
    steps = []

    class Counted(torch.optim.SGD):
        def step(self, *arguments):
            steps.append(1)
            super().step(*arguments)

    _, fitted = fit(tmp_path, linear(), optimizer=partial(Counted, lr=0.01), max_steps=limit)
    assert len(steps) == min(limit, 15) and len(fitted.history) == epochs
    row = (tmp_path / "history.csv").read_text().splitlines()[-1].split(",")
    assert 0 < float(row[2]) < 2  # the mean over the images that were seen


@pytest.mark.parametrize(
    ("epochs", "limit", "steps", "within"),
    [(20, None, 5, 20), (20, 1, 5, 1), (20, 5, 5, 1), (20, 6, 5, 2), (20, 99, 5, 20), (3, 9, 1, 3)],
)
def test_the_epochs_that_iterations_begin(epochs, limit, steps, within):
    assert epochs_within(epochs, limit, steps) == within


def test_it_ends_where_nothing_is_gained(tmp_path):
    flat = {"optimizer": partial(torch.optim.SGD, lr=0.0), "monitor": "val_loss"}
    _, fitted = fit(tmp_path, linear(), **flat, epochs=20, patience=4)
    # A tie is no gain, but the later of two epochs that are alike is the one that is kept.
    assert len(fitted.history) == 5 and fitted.best_epoch == 5
    fit(tmp_path, linear(), **flat, epochs=20, patience=4, resume=True)
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 6


def test_from_an_iteration_on_only_some_stages_train(tmp_path):
    """The cervix paper: the whole network, then its last layer alone."""
    moved = []

    class Watched(torch.optim.SGD):
        def step(self, *arguments):
            moved.append([p.grad is not None for p in self.param_groups[0]["params"]])
            super().step(*arguments)

    chosen = {"switch_at": 7, "switch_to": ["5"]}
    fit(tmp_path, network(), optimizer=partial(Watched, lr=0.01, momentum=0.9), **chosen)
    assert all(all(step) for step in moved[:7])
    assert all(step == [False] * 4 + [True] * 2 for step in moved[7:]) and len(moved) == 15
    with pytest.raises(ConfigError, match="trainer.switch_to: no stage 'head'"):
        fit(tmp_path / "x", network(), switch_at=3, switch_to=["head"])
    with pytest.raises(ConfigError, match=r"trainer.switch_to=\[\]: name the stages that train"):
        fit(tmp_path / "y", network(), switch_at=3)


@pytest.mark.parametrize(
    ("monitor", "values", "ended"),
    [
        ("val_auc", (0.5, 0.6, 0.7), False),
        ("val_auc", (0.7, 0.6, 0.7), True),
        ("val_loss", (0.7, 0.6, 0.5), False),
        ("val_loss", (0.5, 0.6, 0.5), True),
    ],
)
def test_a_gain_is_upwards_for_a_score_and_downwards_for_a_loss(monitor, values, ended):
    settings = kit.settings_of(monitor=monitor, patience=2)
    assert loop.ended_early([{monitor: value} for value in values], settings) == ended


def test_pruning_is_asked_from_the_epoch_on_that_is_set(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(loop, "hopeless", lambda run, rows, monitor: asked.append(len(rows)))
    fit(tmp_path, linear(), **SGD, epochs=4, prune_after=2)
    assert asked == [2, 3]


def test_a_schedule_knows_the_epochs_that_are_planned(tmp_path):
    planned = set()

    def rule(lr, *, epochs):
        planned.add(epochs)
        return lr

    fit(tmp_path, linear(), **SGD, schedule=rule, epochs=2)
    fit(tmp_path / "limited", linear(), **SGD, schedule=rule, epochs=9, max_steps=11)
    assert planned == {2, 3}


def test_images_are_held_where_the_settings_say(tmp_path, monkeypatch):
    places = []
    monkeypatch.setattr(
        "medexp.train.feed.pick_place", lambda split, device, place: places.append(place) or place
    )
    for place in ("device", "stream"):
        fit(tmp_path / place, linear(), **SGD, epochs=1, data=place)
    assert places == ["device", "stream"]


def test_a_schedule_gets_what_its_signature_takes(tmp_path):
    asked = []

    def rule(lr, *, steps, history, iteration):
        asked.append((steps, list(history), iteration))
        return lr

    fit(tmp_path, linear(), **SGD, schedule=rule, epochs=2)
    rows = [line.split(",") for line in (tmp_path / "history.csv").read_text().splitlines()]
    loss = float(rows[1][rows[0].index("val_loss")])
    steps = {step: (count, losses) for count, losses, step in asked}
    assert steps[0] == (5, []) and steps[5] == (5, [loss]) and list(steps) == list(range(10))


def test_a_fixed_sampling_shows_the_same_images_every_epoch():
    class Twice:
        fixed = True

        def order(self, labels, generator):
            return torch.randint(len(labels), (90,), generator=generator)

    flips = augment.FlipsTurns()
    epochs = [draws_of(50, flips, Twice(), seed=1, epoch=e) for e in range(2)]
    pairs = [sorted(zip(o.tolist(), map(tuple, d.tolist()), strict=True)) for o, d in epochs]
    assert pairs[0] == pairs[1] and not torch.equal(epochs[0][0], epochs[1][0])
    assert sorted(draws_of(50, flips, Twice(), seed=2, epoch=0)[0].tolist()) != [
        p[0] for p in pairs[0]
    ]


def test_penalties_have_a_column_of_their_own(tmp_path):
    stages = {"1": Stage(l2=0.5, l1=0.25)}
    frozen = {"optimizer": partial(torch.optim.SGD, lr=0.0), "monitor": "val_loss"}
    net, _ = fit(tmp_path, linear(), **frozen, epochs=1, stages=stages)
    header, row = (line.split(",") for line in (tmp_path / "history.csv").read_text().splitlines())
    kernel = net[1].weight.detach()
    expected = 0.5 * kernel.square().sum() + 0.25 * kernel.abs().sum()
    values = dict(zip(header, row, strict=True))
    assert float(values["train_penalty"]) == pytest.approx(expected.item(), rel=1e-5)
    assert float(values["train_loss"]) == pytest.approx(0.7, abs=0.2)


def test_val_loss_holds_the_penalties_where_it_is_asked_to(tmp_path):
    """As Keras' evaluate() reports a loss: with the regularizers of frozen layers too."""
    still = {"optimizer": partial(torch.optim.SGD, lr=0.0), "monitor": "val_loss", "epochs": 1}
    network = nn.Sequential(nn.Flatten(), nn.Linear(108, 4), nn.Linear(4, 1))
    for frozen in (False, True):
        values = {}
        for asked in (False, True):
            stages = {"1": Stage(l2=0.5, l1=0.25, frozen=frozen)}
            folder = tmp_path / f"{frozen}{asked}"
            net, fitted = fit(folder, network, **still, stages=stages, val_penalty=asked)
            values[asked] = fitted.history[0]["val_loss"]
            assert fitted.best_value == values[asked]
        kernel = net[1].weight.detach()
        expected = 0.5 * kernel.square().sum() + 0.25 * kernel.abs().sum()
        assert values[True] - values[False] == pytest.approx(expected.item(), rel=1e-5)


def test_a_penalty_is_of_any_kind_on_any_stage():
    stages = (Stage(), Stage(l1=0.1), Stage(l2=0.1))
    assert [loop.penalized({"0": Stage(), "1": s}) for s in stages] == [False, True, True]


def test_a_phase_without_a_checkpoint_says_that_it_starts_anew(medexp, toy):
    """It was killed before its first epoch was done."""
    run = toy("trainer.epochs=1")
    (run / "checkpoints" / "last.pt").unlink()
    before = (run / "history.csv").read_text().splitlines()
    assert medexp("train", "--config-dir", MINE, f"resume={run}", "trainer.epochs=2") == 0, (
        medexp.err
    )
    assert f"{run}: nothing to resume here, the phase starts anew" in (run / "run.log").read_text()
    after = (run / "history.csv").read_text().splitlines()
    assert len(after) == 3
    assert after[1].split(",")[:-2] == before[1].split(",")[:-2]  # all but the times


def transfers(run):
    """name -> (shape, fate) of transferred.txt, and its two lines above."""
    source, counts, _, *lines = (run / "transferred.txt").read_text().splitlines()
    return source, counts, {w[0]: (w[1], w[2]) for w in (line.split(maxsplit=2) for line in lines)}


def test_a_table_says_what_was_carried_over(medexp, toy):
    """From three classes to two: the head is drawn anew. Held against both checkpoints."""
    first = toy("+dataset.classes=3", "trainer.epochs=1", "trainer.monitor=val_loss")
    assert not (first / "transferred.txt").exists()
    second = toy("model.width=8", "trainer.epochs=1", f"init_from={first}")
    source, counts, found = transfers(second)
    before, after = (
        torch.load(run / "checkpoints/best.pt", weights_only=True)["model"]
        for run in (first, second)
    )
    assert source == f"From {first}/checkpoints/best.pt:"
    assert list(found) == list(after)
    kept = [name for name in after if before[name].shape == after[name].shape]
    for name, (shape, fate) in found.items():
        assert shape == ("x".join(map(str, after[name].shape)) or "1")
        assert fate == ("carried over" if name in kept else "drawn anew: has another shape there")
    numbers = [sum(after[name].numel() for name in names) for names in (kept, after)]
    assert (
        counts == f"{len(kept)} of {len(after)} tensors, {numbers[0]:,} of {numbers[1]:,} numbers"
    )
    assert 0 < len(kept) < len(after)


def test_what_is_on_one_side_only_is_in_the_table_too(tmp_path):
    old, new = nn.Sequential(), nn.Sequential()
    for net, norm in ((old, "before"), (new, "after")):
        net.add_module("conv", nn.Conv2d(3 if net is old else 1, 2, 3))
        net.add_module(norm, nn.BatchNorm2d(2))
    torch.save(old.state_dict(), tmp_path / "old.pt")
    build.start_weights(new, str(tmp_path / "old.pt"), None, tmp_path)
    _, counts, found = transfers(tmp_path)
    assert counts == "2 of 7 tensors, 20 of 29 numbers"
    assert found["conv.weight"] == ("2x1x3x3", "carried over, summed over RGB")
    assert found["after.weight"] == ("2", "drawn anew: is not there")
    assert found["before.weight"] == ("there,", "not in this network")
    assert len(found) == 7 + 5
    (tmp_path / "none").mkdir()
    build.start_weights(new, None, None, tmp_path / "none")
    assert not list((tmp_path / "none").iterdir())
