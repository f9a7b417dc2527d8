"""The audit: numbers that were scored from predictions never contradict, others are found."""

from itertools import product

import numpy as np
import pytest
from sklearn import metrics as sk

from medexp.config.paper import parse_paper
from medexp.errors import MedexpError
from medexp.score import audit
from medexp.score.checks import Count

BINARY = {
    "Accuracy": "accuracy",
    "Precision": "precision_binary",
    "Recall": "recall_binary",
    "F1": "f1_binary",
}
PER_CLASS = {
    "Precision": "per_class.{class}.precision",
    "Recall": "per_class.{class}.recall",
    "F1": "per_class.{class}.f1",
    "Specificity": "per_class.{class}.specificity",
}


def paper(columns, rows, scale=1, **more):
    return parse_paper(
        {
            "title": "Someone's",
            "citation": "C",
            "table": "Table 1",
            "dataset": "d",
            "columns": [
                {"name": n, "metric": metric, "digits": 2, "scale": scale}
                for n, metric in columns.items()
            ],
            "rows": rows,
            **more,
        }
    )


def nothing(model, overrides):
    raise AssertionError("no network is asked for")


def found(table, count=nothing):
    return [(one.where, one.verdict) for one in audit.findings(table, count)]


def one_entry(count=nothing, rows=(), columns=None, **entry):
    """Verdicts and arithmetic of a single entry of the YAML."""
    columns = columns or {"Accuracy (%)": "accuracy"}
    table = paper(columns, list(rows), 100 if "Accuracy (%)" in columns else 1, audit=[entry])
    return [(one.verdict, one.arithmetic) for one in audit.findings(table, count)]


def predictions(rng, n, share, skill):
    labels = (rng.random(n) < share).astype(int)
    return labels, np.where(rng.random(n) < skill, labels, rng.integers(0, 2, n))


def printed(value, digits, scale=1):
    return f"{scale * value:.{digits}f}"


def scored_row(label, y, p, digits, scale):
    scores = (sk.accuracy_score, sk.precision_score, sk.recall_score, sk.f1_score)
    texts = [printed(score(y, p), digits, scale) for score in scores]
    return {"label": label, "reported": dict(zip(BINARY, texts, strict=True))}


# ---------------------------------------------------------------- every table


@pytest.mark.parametrize(("digits", "scale"), [(4, 1), (2, 1), (1, 100)])
def test_scores_of_one_test_set_are_consistent(digits, scale):
    rng = np.random.default_rng(0)
    for _ in range(20):
        labels, _ = predictions(rng, 3000, rng.uniform(0.2, 0.8), 0)
        rows = []
        for name in "abc":
            right = rng.random(3000) < rng.uniform(0.4, 0.95)
            rows.append(
                scored_row(name, labels, np.where(right, labels, 1 - labels), digits, scale)
            )
        verdicts = found(paper(BINARY, rows, scale))
        assert [where for where, _ in verdicts] == [
            "Table 1, a", "Table 1, b", "Table 1, c", "Table 1",
        ]  # fmt: skip
        assert {verdict for _, verdict in verdicts} == {"consistent"}


def test_rows_of_different_test_sets_are_found():
    rng = np.random.default_rng(1)
    rows = [
        scored_row(name, *predictions(rng, 5000, share, 0.7), 4, 1)
        for name, share in (("a", 0.3), ("b", 0.5))
    ]
    *_, shares = audit.findings(paper(BINARY, rows), nothing)
    assert shares.verdict == "contradicts" and "share of positive images" in shares.claim
    implied = [float(text.rstrip("%,")) for text in shares.arithmetic.split() if "%" in text]
    assert implied == pytest.approx([30, 50], abs=2)


def test_a_share_is_implied_by_rows_of_the_positive_class_alone():
    names = ("Accuracy", "Precision", "Recall")
    columns = {name: BINARY[name] for name in names}

    def row(label, *texts):
        return {"label": label, "reported": dict(zip(names, texts, strict=True))}

    apart = [row("a", "0.90", "0.90", "0.90"), row("b", "0.80", "0.90", "0.90")]
    assert found(paper(columns, apart)) == [("Table 1", "contradicts")]
    assert found(paper(columns, apart[:1])) == []  # one row has nothing to differ from
    # Half of the images wrong, though nearly all positive ones are right: no share does that.
    assert found(paper(columns, [*apart, row("c", "0.50", "0.90", "0.90")])) == []
    of_classes = {"Accuracy": "accuracy"} | {n: PER_CLASS[n] for n in names[1:]}
    of_class = [one | {"class": "ill", "group": one["label"]} for one in apart]
    assert found(paper(of_classes, of_class)) == []


def test_a_wrong_f1_is_found_and_an_average_is_not_judged():
    reported = {"Precision": "0.8789", "Recall": "0.8557", "F1": "0.8543"}
    rows = [{"label": "#1", "reported": reported}]
    table = paper({k: BINARY[k] for k in reported}, rows)
    (finding,) = audit.findings(table, nothing)
    assert finding.verdict == "contradicts" and finding.where == "Table 1, #1"
    assert finding.arithmetic == "2·0.8789·0.8557/(0.8789+0.8557) = 0.86714; reported 0.8543"
    for average in ("macro", "weighted"):
        averaged = {k: BINARY[k].replace("binary", average) for k in reported}
        assert audit.findings(paper(averaged, rows), nothing) == []
    averaged = {n: BINARY[n].replace("binary", "weighted") for n in ("Accuracy", *reported)}
    apart = [{"label": a, "reported": dict.fromkeys(averaged, a)} for a in ("0.9", "0.6")]
    assert audit.findings(paper(averaged, apart), nothing) == []
    percent = {"Precision": "87.9", "Recall": "85.6", "F1": "85.4"}
    table = paper({k: BINARY[k] for k in percent}, [{"label": "#1", "reported": percent}], 100)
    assert found(table) == [("Table 1, #1", "contradicts")]


def two_classes(rng, share, skill):
    y, p = predictions(rng, 900, share, skill)
    rows = []
    for c, name in enumerate(("sound", "ill")):
        precision, recall, f1, _ = (
            values[c] for values in sk.precision_recall_fscore_support(y, p, labels=[0, 1])
        )
        specificity = sk.recall_score(1 - y if c else y, 1 - p if c else p)
        values = (precision, recall, f1, specificity)
        texts = [printed(value, 2) for value in values]
        reported = dict(zip(PER_CLASS, texts, strict=True))
        rows.append({"label": f"M1 {name}", "group": "M1", "class": name, "reported": reported})
    return y, p, rows


def test_two_classes_mirror_each_other():
    rng = np.random.default_rng(2)
    for _ in range(20):
        *_, rows = two_classes(rng, 0.4, 0.6)
        verdicts = found(paper(PER_CLASS, rows))
        assert len(verdicts) == 4 and {verdict for _, verdict in verdicts} == {"consistent"}
    rows[1]["reported"]["Specificity"] = "0.99"
    assert ("Table 1, M1 ill", "contradicts") in found(paper(PER_CLASS, rows))


# ---------------------------------------------------------------- entries of a YAML


def test_accuracy_and_precision_follow_from_the_recalls():
    rng = np.random.default_rng(3)
    for _ in range(20):
        y, p, rows = two_classes(rng, rng.uniform(0.3, 0.7), 0.7)
        entry = {
            "check": "recalls", "claim": "x",
            "images": {"sound": int((y == 0).sum()), "ill": int((y == 1).sum())},
        }  # fmt: skip
        accuracy = sk.accuracy_score(y, p)
        own = {"columns": PER_CLASS, "rows": rows, **entry}
        assert one_entry(**own, accuracy={"M1": f"{accuracy:.2%}"})[-1][0] == "consistent"
        assert one_entry(**own, accuracy={"M1": f"{accuracy + 0.02:.2%}"})[-1][0] == "contradicts"
        rows[1]["reported"]["Precision"] = "0.10"
        verdict, text = one_entry(**own, accuracy={"M1": f"{accuracy:.2%}"})[-1]
        assert verdict == "contradicts" and text.endswith("; 0.10")


@pytest.mark.parametrize("digits", [0, 1, 2])
def test_a_share_of_whole_images_is_recognised(digits):
    """Every k of n, printed as a percentage, fits; and what no k gives is found."""
    n = 137
    rows = [
        {"label": str(k), "reported": {"Accuracy (%)": printed(k / n, digits, 100)}}
        for k in range(n + 1)
    ]
    entry = {"check": "grain", "claim": "x", "column": "Accuracy (%)", "rows": rows}
    verdicts = [verdict for verdict, _ in one_entry(**entry, images=[n])]
    assert verdicts == ["consistent"] * (n + 1)
    if digits == 2:
        reachable = {row["reported"]["Accuracy (%)"] for row in rows}
        cut = {f"{10000 * k // n / 100:.2f}" for k in range(n + 1)} - reachable
        others = [f"{h / 100:.2f}" for h in range(5000, 5200) if f"{h / 100:.2f}" not in reachable]
        wrong = [{"label": o, "reported": {"Accuracy (%)": o}} for o in others]
        verdicts = [verdict for verdict, _ in one_entry(**{**entry, "rows": wrong}, images=[n])]
        expected = ["truncated, not rounded" if o in cut else "contradicts" for o in others]
        assert verdicts == expected and expected.count("contradicts") > 150 > 0 < len(cut)


@pytest.mark.parametrize(("whole", "text"), [(29, "3.62"), (7, "0.88")])
def test_a_share_halfway_between_two_prints_as_either(whole, text):
    """29/800 is 3.625%, which floats put beside the edge of what prints as 3.62; 0.875% too."""
    rows = [{"label": "a", "reported": {"Accuracy (%)": text}}]
    entry = {"check": "grain", "claim": "x", "column": "Accuracy (%)", "rows": rows}
    ((verdict, arithmetic),) = one_entry(**entry, images=[800])
    assert verdict == "consistent" and arithmetic.startswith(f"{whole}/800 = ")


def test_the_neighbours_of_an_impossible_share_are_shown():
    rows = [{"label": "AlexNet", "reported": {"Accuracy (%)": "81.62"}}]
    entry = {"check": "grain", "claim": "x", "column": "Accuracy (%)", "rows": rows}
    ((verdict, text),) = one_entry(**entry, images=[2121])
    assert verdict == "contradicts"
    assert text == "1,731/2,121 = 81.612, 1,732/2,121 = 81.660; reported 81.62"


def test_a_confusion_matrix_against_its_metrics():
    rng = np.random.default_rng(4)
    y, p = rng.integers(0, 3, 500), rng.integers(0, 3, 500)
    p = np.where(rng.random(500) < 0.6, y, p)
    entry = {
        "check": "confusion", "claim": "x", "classes": ["a", "b", "c"],
        "matrix": sk.confusion_matrix(y, p).tolist(),
    }  # fmt: skip
    scores = {"precision": sk.precision_score, "recall": sk.recall_score, "f1": sk.f1_score}
    for (rate, score), average in product(scores.items(), ("macro", "weighted", None)):
        value = np.atleast_1d(score(y, p, average=average))[-1]
        reported = {"accuracy": f"{sk.accuracy_score(y, p):.2%}", rate: f"{value:.3f}"}
        assert one_entry(**entry, reported=reported)[0][0] == "consistent"
        reported[rate] = f"{value + 0.2:.3f}"
        ((verdict, text),) = one_entry(**entry, reported=reported)
        assert verdict == "contradicts"
        weighted = score(y, p, average="weighted")
        assert f"{rate} of c " in text and f"weighted mean {rate} {weighted:.4f}" in text
        wrong = {"accuracy": "12.34%", rate: f"{value:.3f}"}  # every rate must fit, not the last
        assert one_entry(**entry, reported=wrong)[0][0] == "contradicts"


def test_parameters_are_those_of_the_network():
    def count(model, overrides):
        return {
            "right": [Count("trainable", 10, 10)],
            "wrong": [Count("trainable", 10, 12), Count("in all", 14, 14)],
            "silent": [Count("trainable", 5 + len(overrides), None)],
        }[model]

    entry = {"check": "parameters", "claim": "x", "models": ["right", "wrong", "silent"]}
    assert one_entry(count, **entry, overrides=["model.x=1"]) == [
        ("consistent", "10 trainable; reported 10"),
        ("contradicts", "10 trainable (-2); reported 12"),
        ("consistent", "14 in all; reported 14"),
        ("cannot be checked", "6 trainable; the paper reports none"),
    ]


def parameters_of_blocks(division, filters, kernel, channels):
    total = statistics = 0
    for n, width in zip(division, filters, strict=True):
        for _ in range(n):
            total += width * (kernel * kernel * channels + 1) + 4 * width
            statistics += 2 * width
            channels = width
    return total, statistics


def test_the_division_into_blocks_is_found_by_its_parameters():
    filters = [4, 8, 16]
    for division in product((1, 2, 3), repeat=3):
        total, statistics = parameters_of_blocks(division, filters, 3, 3)
        same = [
            other
            for other in product(range(1, 40), range(1, 20), range(1, 10))
            if parameters_of_blocks(other, filters, 3, 3) == (total, statistics)
        ]
        entry = {
            "check": "blocks", "claim": "x", "filters": filters, "parameters": total,
            "statistics": statistics,
        }  # fmt: skip
        ((verdict, text),) = one_entry(**entry, stated=sum(division))
        assert verdict == "consistent"
        assert all(f"{' + '.join(map(str, other))} = {sum(other)}" in text for other in same)
        assert one_entry(**entry, stated=30)[0][0] == "contradicts"
    entry["parameters"] += 1
    ((verdict, text),) = one_entry(**entry, stated=9)
    assert verdict == "contradicts" and text.startswith("no number of convolutions")


def test_numbers_within_rounding_and_those_that_are_cut_off():
    entry = {"check": "numbers", "claim": "x"}
    assert one_entry(**entry, reported="1481", counted="251 + 782 + 451") == [
        ("contradicts", "251 + 782 + 451 = 1,484; reported 1,481")
    ]
    assert one_entry(**entry, reported="33.1", counted="100*4198403/12684876") == [
        ("consistent", "100·4198403/12684876 = 33.098; reported 33.1")
    ]
    assert one_entry(**entry, reported="0.817", counted="0.81768") == [
        ("truncated, not rounded", "0.81768; reported 0.817")
    ]
    assert one_entry(**entry, reported="0.28", counted="29/100")[0][0] == "contradicts"
    assert one_entry(**entry, reported="0.28", counted="2899/10000")[0][0] != "contradicts"
    assert one_entry(**entry, reported="0.81", counted="0.811") == [
        ("consistent", "0.811; reported 0.81")
    ]
    pairs = {"a": "2", "b": "3"}
    assert one_entry(**entry, reported=pairs, counted={"a": "1+1", "b": "1+1"}) == [
        ("consistent", "1+1 = 2; reported 2"),
        ("contradicts", "1+1 = 2; reported 3"),
    ]
    assert [v for v, _ in one_entry(**entry, reported=pairs, counted="2")] == [
        "consistent", "contradicts",
    ]  # fmt: skip


def test_an_entry_says_where_and_what_it_is():
    entry = {
        "check": "unknown",
        "claim": " The split ",
        "where": "Section 2",
        "reason": "None.\n",
    }
    (finding,) = audit.findings(paper({}, [], audit=[entry]), nothing)
    assert finding == audit.Finding(
        "Someone's", "Section 2", "cannot be checked", "The split", "None."
    )


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"check": "number"}, r"audit\[0\]\.check=number: no such check. Did you mean 'numbers'"),
        ({}, r"audit\[0\]\.check=None: no such check. Valid: blocks, bold, confusion"),
        ({"check": "unknown", "claim": "x", "reasn": "y"}, "reasn: not of check=unknown. Did you"),
        ({"check": "unknown", "claim": "x"}, r"audit\[0\]\.reason: missing, and check=unknown"),
        ({"check": "unknown", "reason": "x"}, r"audit\[0\]\.claim: missing"),
        (
            {"check": "numbers", "claim": "x", "reported": "1", "counted": "1 +"},
            r"^paper Someone's, Table 1: audit\[0\]: '1 \+' cannot be read",
        ),
        (
            {"check": "numbers", "claim": "x", "reported": {"a": 1}, "counted": {"b": 1}},
            r"counted: its keys are \['b'\], those of reported \['a'\]",
        ),
        (
            {"check": "grain", "claim": "x", "column": "Acuracy", "images": [5]},
            "no column 'Acuracy'.*Did you mean 'Accuracy'",
        ),
        (
            {"check": "recalls", "claim": "x", "images": {"a": 5}, "accuracy": {"M1": "50%"}},
            r"accuracy\.M1: needs a row of that group, with its recall.*\(a\); found none",
        ),
        (
            {
                "check": "confusion", "claim": "x", "classes": ["a", "b"],
                "matrix": [[1, 2]], "reported": {},
            },
            "matrix: need 2 rows of 2 numbers",
        ),
        (
            {
                "check": "confusion", "claim": "x", "classes": ["a", "b"],
                "matrix": [[1, 2], [3, 4]], "reported": {"precison": "0.5"},
            },
            r"reported\.precison: no such rate. Did you mean 'precision'",
        ),
    ],
)  # fmt: skip
def test_an_entry_that_is_none_is_refused_by_its_key(entry, message):
    table = paper({"Accuracy": "accuracy"}, [], audit=[entry])
    with pytest.raises(MedexpError, match=message):
        audit.findings(table, nothing)
