"""metrics.json and predictions.csv as their one writer makes them."""

import csv
from dataclasses import replace

import numpy as np

from medexp.config.compose import compose
from medexp.jobs.results import write_results
from medexp.score import metrics
from tests.conftest import read
from tests.mine.toy import load


def test_everything_that_is_known_of_the_data_and_the_run_is_written(tmp_path):
    settings = compose(["source=phantom", "trainer.resamples=20"])
    data = replace(load("."), notes=("the split is the authors' own",), skipped={"a.png": "empty"})
    rng = np.random.default_rng(0)
    predicted = {}
    for name in ("val", "test"):
        second = rng.random(len(data.splits()[name]))
        predicted[name] = np.stack([1 - second, second], 1)
    write_results(tmp_path, settings, data, predicted, {"PHANTOM": "synthetic"}, {"epochs": 3})
    content = read(tmp_path / "metrics.json")
    assert content["notes"] == ["the split is the authors' own"]
    assert content["skipped"] == {"a.png": "empty"} and content["marks"] == {"PHANTOM": "synthetic"}
    assert (content["dataset"], content["model"]) == ("pcam", settings.names.model)
    assert content["classes"] == ["a", "b"] and content["split"] == "test"
    assert content["epochs"] == 3
    for name, p in predicted.items():
        labels = data.splits()[name].labels
        assert content[name] == metrics.score(labels, p, ("a", "b"), resamples=20)
    rows = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    assert len(rows) == 96 and {row["split"] for row in rows} == {"val", "test"}
