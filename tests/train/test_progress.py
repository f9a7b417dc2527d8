"""The bar and the line."""

import io

from rich.console import Console

from medexp.train import progress

ROW = {"epoch": 2, "train_loss": 0.5, "val_loss": 0.25, "val_auc": 0.9, "images_per_s": 1234.5}


def test_line_fits_80_columns():
    line = progress.line(ROW, "val_auc", 1000)
    assert line == "epoch 2/1000  loss 0.5000  val_loss 0.2500  val_auc 0.9000  1,234 img/s"
    assert len(line) <= 80 and "val_auc" not in progress.line(ROW, "val_loss", 3)


def test_bar_on_a_terminal(monkeypatch):
    out = io.StringIO()
    terminal = Console(file=out, force_terminal=True, width=80)
    monkeypatch.setattr(progress, "Console", lambda stderr: terminal)
    with progress.Training(epochs=3, images_per_epoch=100, done=1) as shown:
        for _ in range(4):
            shown.step(25)
        shown.epoch(ROW, "val_auc")
        shown.bar.refresh()
    text = out.getvalue()
    assert "epoch 3/3" in text and "val_auc 0.900" in text and "img/s" in text and "67%" in text


def test_a_plain_line_an_epoch_elsewhere(capsys):
    with progress.Training(epochs=3, images_per_epoch=100, done=0) as shown:
        shown.step(100)
        shown.epoch(ROW, "val_auc")
    assert capsys.readouterr().err == progress.line(ROW, "val_auc", 3) + "\n"
