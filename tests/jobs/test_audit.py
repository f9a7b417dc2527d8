"""What the audit says of the shipped papers, worked out once more by other means."""

import re
from collections import Counter
from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest

from medexp.cli.papers import paper_nodes
from medexp.config.paper import parse_paper, rounding
from medexp.jobs import audit
from tests.conftest import ROOT

TEXTS = ROOT.parent / "shared" / "papers"
FILES = {
    "all": "all_mir2019.txt",
    "cervix": "cervix_nguyen2017.txt",
    "ldct": "ldct_alghamdi2021.txt",
    "pcam": "pcam_johny2021.txt",
    "tbt": "tbt_zunair2021.txt",
}


@pytest.fixture(scope="module")
def nodes():
    return paper_nodes()


@pytest.fixture(scope="module")
def findings(nodes):
    return audit.audit_of(nodes.values())


def of(findings, *words):
    """place -> verdict of the findings that have all the words."""
    return {
        one["where"]: one["verdict"]
        for one in findings
        if all(word in f"{one['claim']} {one['arithmetic']}" for word in words)
    }


# ---------------------------------------------------------------- the verdicts


def test_readings_of_ours_and_explained_ones_are_no_contradictions(findings):
    """18 of these 33 were among the 48 contradictions of an audit without those verdicts."""
    counts = Counter(one["verdict"] for one in findings)
    assert counts == {
        "contradicts": 49, "explained": 6, "truncated, not rounded": 3, "reading ruled out": 24,
        "cannot be checked": 4, "consistent": 89,
    }  # fmt: skip
    by_verdict = {
        verdict: [one["where"] for one in findings if one["verdict"] == verdict]
        for verdict in counts
    }
    assert sorted(by_verdict["explained"]) == [
        "Figure 11", "Section 3.2", "Section 3.3 and Figure 20", "Section 3.6 and Figure 20",
        "Sections 3.1 and 3.2", "Table 2, native4",
    ]  # fmt: skip
    assert sorted(by_verdict["truncated, not rounded"]) == [
        "Abstract", "Section 8", "Table 2, InceptionV3",
    ]  # fmt: skip
    assert Counter(where.partition(",")[0] for where in by_verdict["reading ruled out"]) == {
        "Figure 19": 2,  # 14 convolutions
        "Section 5.3.1": 1,  # 33.1% of the weights alone
        "Section 3.1 and Table 2": 2,  # softmax on one output, on two
        "Section 4": 3,  # 3.5% as the mean, the least, the most
        "Table 1": 1,  # the last column as that of one class
        "Table 2": 3,  # the last 0 of TBT's accuracies as a digit
        "Table 3": 8,  # PCam's recall as the mean over the classes
        "Table 4": 4,
    }


def test_what_is_cut_off_is_the_number_up_to_its_last_digit():
    for printed, value in (("0.817", "0.81768"), ("92.8", "92.86"), ("83.67", "83.679")):
        assert value.startswith(printed) and f"{float(value):.{len(printed) - 3}f}" != printed
    assert f"{100 * 1774 / 2120:.3f}" == "83.679"


# ---------------------------------------------------------------- quotations


def plain(text):
    return " ".join(re.sub("</?b>|[*_]", "", text).split()).casefold()


def test_every_quotation_stands_in_its_paper(nodes):
    """In claims, explanations and what is `quoted`; [...] leaves something out."""
    seen = 0
    for name, node in nodes.items():
        file = TEXTS / FILES[name.partition("_")[0]]
        text = plain(file.read_text()) if file.exists() else None
        for entry in node.get("audit") or ():
            words = [entry["claim"], (entry.get("explained") or {}).get("because", "")]
            quotes = [q for one in words for q in re.findall('"([^"]+)"', one)]
            quotes += [one["text"] for one in (entry.get("says") or {}).values()]
            for part in (part for quote in quotes for part in quote.split(" [...] ")):
                seen += 1
                assert text is None or plain(part) in text, (name, part)
    assert seen > 50


def test_what_the_papers_say_twice_and_differently(findings):
    found = [
        of(findings, "ReLU”, “Sigmoid"),
        of(findings, "Softmax for top layers", "soft-sigmoid"),
        of(findings, "Data Science Bowl", "TCIA"),
        of(findings, "first 3 principal", "first four principal"),
        of(findings, "Inception's results are", "shown in Table 2", "Table 4. Performance"),
        of(findings, "listed in Table 2", "Table 4. Performance"),
        of(findings, "seen in Figure 11", "Figure 15. Train"),
    ]
    assert [list(one) for one in found] == [
        ["Sections 3.6 and 5.1"], ["Section 3.1"], ["Abstract and Section 3.2"],
        ["Section 4 and Figure 4"], ["Section 6.4"], ["Figure 15"], ["Section 6.4"],
    ]  # fmt: skip
    assert all(set(one.values()) == {"contradicts"} for one in found)


def test_bold_is_where_the_paper_prints_it(nodes, findings):
    lines = {
        "tbt_table1": ["PT	<b>0.35</b>	<b>0.68</b>	<b>0.56</b>	0.09	0.48",
                       "PT+CW	0.30	0.59	0.41	<b>0.37</b>	<b>0.65</b>",
                       "PT+CW+AUG	0.33	0.59	0.47	0.27	<b>0.54</b>"],
        "tbt_table2": ["PT	0.13	42.30", "PT+CW+AUG	<b>0.20</b>	<b>42.30</b>"],
    }  # fmt: skip
    for name, own in lines.items():
        if TEXTS.is_dir():
            assert all(line in (TEXTS / FILES["tbt"]).read_text() for line in own)
        paper = parse_paper(nodes[name])
        bold: dict[str, list[str]] = {}
        for line in own:
            label, *cells = line.split("\t")
            row = next(row for row in paper.rows if row.label == label)
            for column, cell in zip(row.reported, cells, strict=True):
                assert re.sub("</?b>", "", cell) == row.reported[column]
                if cell.startswith("<b>"):
                    bold.setdefault(column, []).append(label)
        (entry,) = (one for one in nodes[name]["audit"] if one["check"] == "bold")
        assert entry["rows"] == bold
    columns = of(findings, "A value in bold", "in bold")
    assert columns.pop("Table 1, Miliary or FibC") == "reading ruled out"
    assert len(columns) == 6 and set(columns.values()) == {"consistent"}


# ---------------------------------------------------------------- PCam's half


def test_no_row_of_pcam_is_of_a_set_that_is_half_tumour(nodes, findings):
    """Precision and recall of a row, on a set of either half, give another accuracy."""
    rows = [
        (f"Table {i}, {row.label}", row.reported)
        for i in (3, 4)
        for row in parse_paper(nodes[f"pcam_table{i}"]).rows
    ]
    found = of(findings, "half of which hold tumour")
    assert found == dict.fromkeys((where for where, _ in rows), "contradicts") and len(rows) == 12
    for _, reported in rows:
        spans = [map(Fraction, rounding(reported[name])) for name in ("Precision", "Recall")]
        accuracies = []
        for precision, recall in product(*spans):
            # Of 2 images one is positive.
            right = recall
            wrongly_found = right / precision - right
            accuracies.append((right + 1 - wrongly_found) / 2)
        # Fewer positive images than half, and so more right ones than half would make.
        assert rounding(reported["Accuracy"])[0] > max(accuracies)


def test_the_output_that_pcam_counts_is_one(findings):
    ruled_out = of(findings, '"Softmax"')
    assert ruled_out == {"Section 3.1 and Table 2": "reading ruled out"}
    assert "421,542; reported 421,491" in str(findings)  # 50*2+2 against 50+1 at the end: 51 more
    assert of(findings, '"Soft-sigmoid"') == {"Section 3.1 and Table 2": "consistent"}


# ---------------------------------------------------------------- the leukaemia paper's listings


def test_the_listing_that_splits_by_class_leaves_one_image_more(findings):
    """Figure 9's slice, on every division of 10,600 images into two classes."""
    fitting = []
    for n in range(5000, 9000):
        tested = []
        for size in (n, 10600 - n):
            images = list(range(size))
            tested.append(len(images[int(0.8 * len(images)) :]))
        if tested == [1370 + 77, 71 + 603]:
            fitting.append(n)
    assert fitting == [7231, 7232, 7233, 7234]
    assert 10600 - 1447 - 674 == 8479 and int(0.8 * 10600) == 8480
    found = of(findings, "int(0.8·7,231) + int(0.8·3,369) = 5,784 + 2,695 = 8,479", "3 other")
    assert found == {"Section 3.3 and Figure 20": "explained", "Figure 11": "explained"}


def test_the_listing_of_epoch_1_is_of_epoch_85(findings):
    """An L2 of .02 on weights drawn as Keras draws them, stepped on by SGD."""
    rng = np.random.default_rng(0)
    filters = (3, 32, 32, 32, 64, 64, 128, 128, 256, 256, 384, 384, 512, 512)
    shapes = [(9 * a, 9 * b, 9 * a * b) for a, b in pairwise(filters)]
    shapes += [(a, b, a * b) for a, b in ((12800, 4096), (4096, 1000), (1000, 2))]
    loss = 0.0
    for fan_in, fan_out, weights in shapes:
        limit = np.sqrt(6 / (fan_in + fan_out))
        drawn = rng.uniform(-limit, limit, 100_000)
        loss += 0.02 * weights * float(np.mean(drawn**2))
    assert loss == pytest.approx(205.5, rel=0.01)
    means = []
    for _ in range(100):
        steps = []
        for _ in range(667):
            steps.append(loss)
            loss *= (1 - 0.0002 * 2 * 0.02) ** 2  # w -= rate * 2 * l2 * w
        means.append(float(np.mean(steps)))
    nearest = 1 + int(np.argmin(np.abs(np.array(means) - 83.4389)))
    assert abs(nearest - 85) <= 1
    falls = [a / b for a, b in pairwise(means)]
    assert falls[84] == pytest.approx(83.4389 / 82.5533, abs=1e-5)
    found = of(findings, '"Epoch 1/5"', "= 84.977; reported 1")
    assert found == {"Section 3.6 and Figure 20": "explained"}


def test_the_reshape_of_ldct_is_of_the_resized(findings):
    before, after = np.empty((6691, 64, 64), np.bool_), (6691, 120, 120, 1)
    with pytest.raises(ValueError, match="cannot reshape array of size 27406336"):
        before.reshape(after)
    resized = np.empty((6691, 120, 120), np.bool_)
    assert resized.reshape(after).size == 96_350_400
    assert of(findings, "27,406,336", "96,350,400") == {"Section 3.2": "explained"}
