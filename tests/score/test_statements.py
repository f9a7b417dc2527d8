"""What a paper says in words, in bold and in listings; verdicts of readings and explanations."""

import random
import re

import numpy as np
import pytest
import yaml
from sklearn import metrics as sk

from medexp.errors import MedexpError
from medexp.score import audit
from medexp.score.checks import VERDICTS
from tests.conftest import ROOT
from tests.score.test_audit import BINARY, nothing, one_entry, paper, printed

# ---------------------------------------------------------------- readings and explanations

WRONG = {"check": "numbers", "claim": "x", "reported": "3", "counted": "1 + 1"}
RIGHT = {"check": "numbers", "because": "One more.", "reported": "3", "counted": "1 + 1 + 1"}


def test_a_reading_of_ours_contradicts_nobody():
    assert one_entry(**WRONG) == [("contradicts", "1 + 1 = 2; reported 3")]
    assert one_entry(**WRONG, tried=False)[0][0] == "contradicts"
    assert one_entry(**WRONG, tried=True) == [("reading ruled out", "1 + 1 = 2; reported 3")]
    fitting = {**WRONG, "counted": "1 + 2"}
    assert one_entry(**fitting, tried=True)[0][0] == "consistent"
    silent = {"check": "unknown", "claim": "x", "reason": "None."}
    assert one_entry(**silent, tried=True)[0][0] == "cannot be checked"


def test_an_explanation_counts_only_if_it_is_consistent():
    assert one_entry(**WRONG, explained=RIGHT) == [
        ("explained", "1 + 1 = 2; reported 3. Explained: One more.: 1 + 1 + 1 = 3; reported 3")
    ]
    for other in (
        {**RIGHT, "counted": "1 + 1 + 2"},
        {**RIGHT, "counted": {"a": "3", "b": "4"}},  # all of it must fit
        {"check": "unknown", "because": "One more.", "reason": "None."},
    ):
        ((verdict, text),) = one_entry(**WRONG, explained=other)
        assert verdict == "contradicts" and ". Not explained: One more.: " in text
    fitting = {**WRONG, "counted": "1 + 2"}
    assert one_entry(**fitting, explained=RIGHT) == [("consistent", "1 + 2 = 3; reported 3")]
    cut = {**WRONG, "reported": "0.81", "counted": "0.819"}
    assert one_entry(**cut, explained=RIGHT)[0][0] == "truncated, not rounded"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"tried": True, "explained": RIGHT}, r"audit\[0\]\.explained: a reading that is tried"),
        ({"explained": {"check": "numbers"}}, r"audit\[0\]\.explained\.because: missing"),
        ({"explained": {**RIGHT, "check": "number"}}, r"explained\.check=number: no such check"),
        ({"explained": {**RIGHT, "where": "here"}}, r"explained\.where: not of check=numbers"),
        ({"explained": {**RIGHT, "counted": "1 +"}}, r"audit\[0\]\.explained: '1 \+' cannot be"),
        ({"trid": True}, r"audit\[0\]\.trid: not of check=numbers. Did you mean 'tried'"),
    ],
)
def test_a_reading_or_explanation_that_is_none_is_refused(more, message):
    table = paper({"Accuracy": "accuracy"}, [], audit=[{**WRONG, **more}])
    with pytest.raises(MedexpError, match=message):
        audit.findings(table, nothing)


def test_the_example_of_the_documentation_is_explained():
    page = (ROOT / "docs/your_own_paper.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(audit:.*?)```", page, re.DOTALL)
    (entry,) = yaml.safe_load(block)["audit"]
    ((verdict, text),) = one_entry(**entry)
    assert verdict == "explained" and "int(0.8·241) + int(0.8·239) = 192 + 191 = 383" in text
    assert [row.split(" | ")[0][2:] for row in re.findall(r"^\| [a-z].*", page, re.M)] == [
        *VERDICTS
    ]


def test_verdicts_are_told_from_the_worst_to_the_best():
    assert VERDICTS[0] == "contradicts" and VERDICTS[-1] == "consistent"
    assert len(set(VERDICTS)) == 6


# ---------------------------------------------------------------- the share of positive images


def test_a_share_is_recognised_from_rates_scored_on_it():
    rng = np.random.default_rng(5)
    for share in (0.3, 0.5, 0.6):
        y = (np.arange(20_000) < 20_000 * share).astype(int)
        p = np.where(rng.random(len(y)) < rng.uniform(0.6, 0.95), y, 1 - y)
        scores = (sk.accuracy_score, sk.precision_score, sk.recall_score)
        texts = [printed(score(y, p), 4) for score in scores]
        columns = {name: BINARY[name] for name in ("Accuracy", "Precision", "Recall")}
        row = {"label": "a", "reported": dict(zip(columns, texts, strict=True))}
        entry = {"check": "prevalence", "claim": "x", "columns": columns, "rows": [row]}
        assert one_entry(**entry, share=f"{share:.0%}")[0][0] == "consistent"
        assert one_entry(**entry, share=f"{share + 0.03:.0%}")[0][0] == "contradicts"
        row["reported"]["Accuracy"] = "0.9999"
        assert one_entry(**entry, share=f"{share:.0%}")[0][0] == "contradicts"


def test_all_right_implies_no_share():
    columns = {name: BINARY[name] for name in ("Accuracy", "Precision", "Recall")}
    row = {"label": "a", "reported": dict.fromkeys(columns, "1.0")}
    entry = {"check": "prevalence", "claim": "x", "columns": columns, "rows": [row]}
    assert one_entry(**entry, share="50%") == [
        ("cannot be checked", "with precision and recall of 1, any share would do")
    ]


# ---------------------------------------------------------------- words, bold print, listings


def test_places_that_name_a_thing_differently_are_found():
    says = {
        "Section 1": {"text": "layers with ReLU behind them", "names": "ReLU"},
        "Section 2": {"text": "a relu layer", "names": "relu"},
    }
    entry = {"check": "quoted", "claim": "x"}
    assert one_entry(**entry, says=says) == [
        ("consistent", 'Section 1: "layers with ReLU behind them". Section 2: "a relu layer"')
    ]
    says["Section 3"] = {"text": "an ELU layer", "names": "ELU"}
    ((verdict, text),) = one_entry(**entry, says=says)
    assert verdict == "contradicts" and text.endswith('Section 3: "an ELU layer"')


@pytest.mark.parametrize(
    ("says", "message"),
    [
        ({"A": {"text": "x", "names": "x"}}, "says: need two places"),
        ({"A": {"text": "x"}, "B": {"text": "x"}}, "says.A: need text and names, found text"),
        (
            {"A": {"text": "a b", "names": "c"}, "B": {"text": "a", "names": "a"}},
            "says.A.names=c: not in its text 'a b'",
        ),
    ],
)
def test_quotations_that_are_none_are_refused(says, message):
    with pytest.raises(MedexpError, match=message):
        one_entry(check="quoted", claim="x", says=says)


def test_bold_is_the_highest_of_a_column():
    values = {"a": "0.50", "b": "0.7", "c": "0.70"}
    rows = [{"label": k, "reported": {"Kappa": v}} for k, v in values.items()]
    entry = {"check": "bold", "claim": "x", "columns": {"Kappa": "kappa"}, "rows": rows}

    def bold(*labels):
        # `rows` is the table's in one_entry, so the check's own goes in by hand.
        own = {"check": "bold", "claim": "x", "rows": {"Kappa": list(labels)}}
        table = paper(entry["columns"], rows, audit=[own])
        return [(one.where, one.verdict, one.arithmetic) for one in audit.findings(table, nothing)]

    text = "in bold 0.7 (b) and 0.70 (c); the highest is 0.7"
    assert bold("b", "c") == [("Table 1, Kappa", "consistent", text)]
    assert bold("b")[0][1] == bold("c")[0][1] == "consistent"
    assert bold("a", "b")[0][1] == bold("a")[0][1] == "contradicts"
    with pytest.raises(MedexpError, match="no row 'd' in Table 1"):
        bold("d")


def listing(sizes, ratio):
    """The paper's splitting function on lists of names: parts of each class."""
    parts = []
    for n in sizes:
        images = [f"{i}.bmp" for i in range(n)]
        random.Random(120).shuffle(images)
        parts.append((images[: int(ratio * n)], images[int(ratio * n) :]))
    return [len(train) for train, _ in parts], [len(test) for _, test in parts]


@pytest.mark.parametrize("ratio", [0.8, 0.7, 0.75])
def test_a_split_by_class_is_recognised_by_its_parts(ratio):
    draw = random.Random(0)
    for _ in range(20):
        sizes = [draw.randint(20, 300) for _ in range(2)]
        train, test = listing(sizes, ratio)
        entry = {
            "check": "split", "claim": "x", "images": sum(sizes), "share": ratio,
            "tested": {"a": test[0], "b": test[1]},
        }  # fmt: skip
        ((verdict, text),) = one_entry(**entry, trained=sum(train))
        assert verdict == "consistent"
        assert (
            f"= {sum(train):,} to train" in text and f" = {sum(test):,} of {sum(sizes):,}" in text
        )
        fitting = sum(listing([n, sum(sizes) - n], ratio)[1] == test for n in range(1, sum(sizes)))
        assert (f"({fitting - 1} other divisions" in text) == (fitting > 1)
        assert one_entry(**entry, trained=sum(train) + 1)[0][0] == "contradicts"
        more = {**entry, "tested": {"a": test[0] + 5, "b": test[1] + 5}}
        ((verdict, text),) = one_entry(**more, trained=sum(train) - 10)
        assert verdict == "contradicts" and text.startswith("no classes of ")
