"""The papers' tables as they are shipped: numbers, runs, findings; `medexp papers` itself."""

import json
import math
import re
from pathlib import Path

import pytest
import yaml

from medexp.cli import papers
from medexp.config.compose import compose, compose_node
from medexp.config.paper import BUDGETS, parse_paper, rounding
from medexp.config.targets import check_node
from medexp.config.tree import plain
from medexp.errors import ConfigError
from medexp.jobs import audit
from medexp.jobs.paper import plan
from medexp.score.checks import Count
from tests.conftest import MINE, ROOT

TEXTS = ROOT.parent / "shared" / "papers"
OWN = ("all", "cervix", "ldct", "pcam", "tbt")  # what dataset=NAME is held against
MAIN = ("all_table2", "cervix_table5", "ldct_table1", "pcam_table4", "tbt_table1")
NAMES = sorted(
    {
        *("pcam_table3", "pcam_table4", "pcam_fig3", "pcam_fig6", "ldct_table1", "ldct_table2"),
        *("cervix_table2", "cervix_table3", "cervix_table4", "cervix_table5", "all_table2"),
        *("tbt_table1", "tbt_table2", "tbt_augment", "all_optimizers"),
        *("cervix_ablation", "pcam_pooling"),
    }
)
SUPPLIED = {"num_classes": 2, "in_channels": 3, "image_size": ()}
# Lines of the papers' texts: file, the line as it stands there, table, and the rows that it fills.
LINES = [
    (
        "pcam_johny2021.txt",
        "Model#1	0.8245	0.809	0.821	0.7847	0.9	0.8718	0.8561	0.8445	0.8535	0.94",
        "pcam_table3",
        ["before #1", "after #1"],
    ),
    (
        "pcam_johny2021.txt",
        "Model#4	0.833	0.8	0.7995	0.7992	0.9	0.8733	0.8246	0.8713	0.8713	0.94",
        "pcam_table3",
        ["before #4", "after #4"],
    ),
    (
        "pcam_johny2021.txt",
        "#2	0.9228	0.8928	0.8818	0.880	0.96",
        "pcam_table4",
        ["#2"],
    ),
    (
        "pcam_johny2021.txt",
        "#4	0.9039	0.8918	0.8917	0.8918	0.96",
        "pcam_table4",
        ["#4"],
    ),
    ("ldct_alghamdi2021.txt", "Proposed dCNN model M3	71.73", "ldct_table1", ["M3"]),
    (
        "ldct_alghamdi2021.txt",
        "M2	Non-cancerous	0.74	0.98	0.84	0.42",
        "ldct_table2",
        ["M2 Non-cancerous"],
    ),
    (
        "ldct_alghamdi2021.txt",
        "	Cancerous	0.92	0.86	0.89	0.95",
        "ldct_table2",
        ["M4 Cancerous"],
    ),
    (
        "cervix_nguyen2017.txt",
        "full augmented, 160 x 160	keep=0.85, 12=0.01, lr=0.0001	1.0821	0.87287",
        "cervix_table2",
        ["full, keep .85, L2 .01"],
    ),
    (
        "cervix_nguyen2017.txt",
        "Average predicted Class Prevalence	0.499	0.454	0.046",
        "cervix_table3",
        ["predicted prevalence"],
    ),
    (
        "cervix_nguyen2017.txt",
        "4	0.5	10.0	Never	Unseg.	.95646",
        "cervix_table4",
        ["4: .5, 10.0, Never, Unseg."],
    ),
    (
        "cervix_nguyen2017.txt",
        "CervixNet-2	0.83758835	65.1%	0.81768",
        "cervix_table5",
        ["CervixNet-2"],
    ),
    ("all_mir2019.txt", "VGG_16	84.8", "all_table2", ["VGG_16"]),
    (
        "tbt_zunair2021.txt",
        "PT+CW	0.30	0.59	0.41	<b>0.37</b>	<b>0.65</b>",
        "tbt_table1",
        ["PT+CW"],
    ),
    ("tbt_zunair2021.txt", "PT+CW	0.14	38.50", "tbt_table2", ["PT+CW"]),
]


@pytest.fixture(scope="module")
def nodes():
    return papers.paper_nodes()


@pytest.fixture(scope="module")
def findings(nodes):
    """Everything that the audit of all papers finds."""
    return audit.audit_of(nodes.values())


@pytest.fixture
def command(capsys, monkeypatch, nodes):
    """`medexp papers ...` on a terminal of 80 columns; its output, which must fit."""
    monkeypatch.setenv("COLUMNS", "80")

    def composed(group, name, arguments=()):  # the shipped ones are composed once for all
        return nodes[name] if name in nodes else compose_node(group, name, arguments)

    monkeypatch.setattr(papers, "compose_node", composed)

    def run(*arguments):
        assert papers.papers(list(map(str, arguments))) == 0
        out = capsys.readouterr().out
        if "--json" not in arguments:
            assert max(map(len, out.splitlines())) <= 80
        return out

    return run


# ---------------------------------------------------------------- the tables


def test_every_table_and_figure_is_there(nodes):
    assert sorted(nodes) == sorted((*OWN, *NAMES))
    for name, node in nodes.items():
        paper = parse_paper(node)
        assert paper.dataset == name.partition("_")[0]
        assert (node["budget"], node["only"], node["row"]) == ("full", [], None)
        assert set(paper.budgets) == set(BUDGETS) and not paper.budgets["full"]
        assert all(row.run for row in paper.rows)


@pytest.mark.parametrize("name", NAMES)
def test_a_header_says_that_the_paper_trained_in_float32(name):
    """No paper's text speaks of half precision, which our default is where a device has it."""
    header = (ROOT / f"conf/paper/{name}.yaml").read_text().partition("title:")[0]
    assert "bf16" in header and "trainer.amp=off" in header
    for text in TEXTS.glob("*.txt"):
        assert not re.search(r"bf16|bfloat|fp16|float16|half.precision|mixed.precision",
                             text.read_text(), re.IGNORECASE)  # fmt: skip
    assert compose([f"paper={name}"]).trainer.amp == "auto"


def test_a_data_set_is_held_against_its_papers_main_table(nodes):
    for own, main in zip(OWN, MAIN, strict=True):
        assert nodes[own] | {"audit": None} == nodes[main] | {"audit": None}
        assert nodes[own]["audit"] != nodes[main].get("audit")
        assert compose([f"dataset={own}"]).paper == nodes[own]


@pytest.mark.parametrize(("file", "line", "name", "labels"), LINES)
def test_the_reported_numbers_are_those_of_the_text(nodes, file, line, name, labels):
    if TEXTS.is_dir():
        assert line in (TEXTS / file).read_text()
    rows = {row.label: row for row in parse_paper(nodes[name]).rows}
    reported = [number for label in labels for number in rows[label].reported.values()]
    cells = [re.sub("</?b>|%", "", cell) for cell in line.split("\t")]
    assert reported == cells[-len(reported) :]


def test_ours_has_the_digits_of_the_papers(nodes):
    """But for a column where a paper prints eight in one row, four in another."""
    for name in NAMES:
        paper = parse_paper(nodes[name])
        for column in paper.columns:
            reported = [row.reported.get(column.name) for row in paper.rows]
            digits = [len(text.partition(".")[2]) for text in reported if text]
            if digits and (paper.dataset, column.name) != ("cervix", "Validation Loss"):
                assert column.digits == max(digits)


@pytest.mark.parametrize("name", NAMES)
def test_every_run_composes_in_every_budget(nodes, name):
    """A row's overrides of all budgets are laid over one another: each key must be one."""
    paper = parse_paper(nodes[name])
    words: dict[str, list[str]] = {}
    for budget in reversed(BUDGETS):
        for job in plan(paper, {}, root=Path("here"), budget=budget):
            key = f"{job.before} {job.row} {job.settings.get('model')}"
            own = [word for word in job.overrides() if not word.startswith("hydra.")]
            words[key] = [word for word in words.get(key, []) if word not in own] + own
    assert len(words) >= len({row.key for row in paper.rows})
    for own in words.values():
        settings = compose([f"paper={name}", *own])
        assert settings.trainer.resamples == 200  # smoke came last
        for group in ("optimizer", "schedule", "augment", "loss", "sampling"):
            check_node(group, getattr(settings, group))
        check_node("dataset", settings.dataset, {"root": ""})
        check_node("model", settings.model, SUPPLIED)


def test_rows_differ_in_what_the_paper_says(nodes):
    """Two stages after tuning, one before; a run for each network, not for each class."""
    table3 = parse_paper(nodes["pcam_table3"])
    jobs = plan(table3, {}, root=Path("here"), budget="full")
    before, after = ([j for j in jobs if j.row.startswith(w)] for w in ("before", "after"))
    assert len(before) == len(after) == 4
    assert not any("recipe" in job.settings for job in before)
    assert all(job.settings["recipe"] == "two_stage" for job in after)
    table2 = parse_paper(nodes["ldct_table2"])
    jobs = plan(table2, {}, root=Path("here"), budget="full")
    assert [job.row for job in jobs] == ["M1", "M2", "M3", "M4"] and len(table2.rows) == 8
    table1 = parse_paper(nodes["tbt_table1"])
    video, *rows = plan(table1, {}, root=Path("here"), budget="smoke")
    assert video.before and video.settings["recipe"] == "ucf50"
    assert [row.settings.get("init_from") for row in rows] == [None, *["'here/before-video'"] * 3]


TRIALS = {  # what a paper tried and prints no table of, with its words
    "pcam_pooling": ("pcam_johny2021.txt", "it is found that it works better than 2x2"),
    "cervix_ablation": ("cervix_nguyen2017.txt", "batch-norm actually harmed this model"),
    "all_optimizers": ("all_mir2019.txt", "gave the best classification result in all the config"),
    "tbt_augment": ("tbt_zunair2021.txt", "We also tried blur and random shifts"),
}


def overrides(nodes, name):
    """Row -> the KEY -> VALUE of its run, and the settings that this composes."""
    jobs = plan(parse_paper(nodes[name]), {}, root=Path("here"), budget="full")
    lines = {
        job.row: [word for word in job.overrides() if not word.startswith("hydra.")]
        for job in jobs
        if not job.before
    }
    return {row: compose([f"paper={name}", *line]) for row, line in lines.items()}


@pytest.mark.parametrize("name", TRIALS)
def test_what_a_paper_tried_without_a_table(nodes, name):
    """What is reported of a trial stands in a printed table; the variants have no number."""
    file, words = TRIALS[name]
    if TEXTS.is_dir():
        assert words in (TEXTS / file).read_text()
    shipped = {
        tuple(row.reported.values())
        for other in NAMES
        if other not in TRIALS
        for row in parse_paper(nodes[other]).rows
    }
    paper = parse_paper(nodes[name])
    assert all(tuple(row.reported.values()) in {(), *shipped} for row in paper.rows)
    assert any(not row.reported for row in paper.rows)


def test_the_rows_of_a_trial_differ_in_one_thing(nodes):
    pooling = overrides(nodes, "pcam_pooling")
    for i in (1, 2, 3, 4):
        two, one = (pooling[f"#{i}, stride {n}"] for n in (2, 1))
        assert (two.model["pool_stride"], one.model["pool_stride"]) == (2, 1)
        assert plain(two)["model"] | {"pool_stride": 1} == plain(one)["model"]
    cervix = overrides(nodes, "cervix_ablation")
    assert [cervix[f"CervixNet-2, {w}BatchNorm"].model["batch_norm"] for w in ("no ", "")] == [
        False, True,
    ]  # fmt: skip
    for network in ("Resnet v1", "Inception v2"):
        whole, last = (cervix[f"{network}, {w}"] for w in ("whole network", "last layer"))
        stages = [settings.model["stages"] for settings in (whole, last)]
        assert [one["features"]["frozen"] for one in stages] == [False, True]
        assert not stages[1]["head"]["frozen"] and whole.trainer == last.trainer
    table5 = overrides(nodes, "cervix_table5")
    table3 = overrides(nodes, "cervix_table3")
    stated = compose(["augment=cervix_resnet"]).augment  # section 6.3, of ResNet alone
    for settings in (table5["Resnet v1"], table3["ResNet v1"], cervix["Resnet v1, last layer"]):
        assert settings.augment == stated != table5["Inception v2"].augment
    assert table5["Inception v2"].trainer == cervix["Inception v2, whole network"].trainer
    optimizers = overrides(nodes, "all_optimizers").values()
    assert {one.optimizer["lr"] for one in optimizers} == {0.0002}
    assert len({one.optimizer["_target_"] for one in optimizers}) == 4
    tbt = overrides(nodes, "tbt_augment")
    plain_, turned, without, blur, shift = (one.augment for one in tbt.values())
    assert sorted([*without["angles"], 0]) == turned["angles"] and "Identity" in plain_["_target_"]
    assert blur["_target_"].endswith(".Blur") and shift["shift"] > 0
    assert len({str(plain(one)["loss"]) for one in tbt.values()}) == 1


def test_the_counts_of_pooling_by_a_stride_of_1(nodes):
    """The header's millions, from `same` padding by hand; the paper: weights "well below 10 MB"."""
    counted = []
    for kernels, strides, dense in (
        ((9, 4, 3), (3, 1, 1), (200, 200)),
        ((7, 3, 3), (3, 2, 2), (100, 100)),
        ((10, 4, 2), (4, 1, 1), (300, 200)),
        ((8, 5, 5), (2, 2, 2), (200, 50)),
    ):
        total, side, channels = 0, 96, 3
        for kernel, stride, filters in zip(kernels, strides, (30, 100, 100), strict=True):
            total += kernel**2 * channels * filters + filters
            side, channels = -(-side // stride), filters
        units = side**2 * channels
        for out in (*dense, 1):
            total, units = total + units * out + out, out
        counted.append(total)
    ours = [
        audit.parameters_of(f"native{i}", ["model.pool_stride=1"], [])[0].counted
        for i in (1, 2, 3, 4)
    ]
    assert ours == counted
    assert [f"{n / 1e6:.1f}" for n in counted] == ["20.7", "0.8", "17.4", "3.2"]
    assert [round(4 * n / 1e6) for n in counted] == [83, 3, 70, 13]


def test_a_lost_column_is_shown_as_such(nodes):
    paper = parse_paper(nodes["tbt_table1"])
    *known, lost = paper.columns
    assert lost.metric is None and "lost" in lost.doubt
    assert [column.name for column in known if column.name not in paper.rows[0].reported] == [
        "Miliary", "FibC",
    ]  # fmt: skip
    assert all(lost.name in row.reported for row in paper.rows)


# ---------------------------------------------------------------- the audit


def verdicts(findings, *words):
    """(where, verdict) of the findings whose claim or arithmetic has all the words."""
    return [
        (one["where"], one["verdict"])
        for one in findings
        if all(word in f"{one['where']} {one['claim']} {one['arithmetic']}" for word in words)
    ]


def test_f1_that_is_no_harmonic_mean_is_found(findings):
    found = dict(verdicts(findings, "harmonic mean"))
    wrong = {where for where, verdict in found.items() if verdict == "contradicts"}
    pcam = [f"Table 3, {w} #{i}" for w in ("before", "after") for i in (1, 2, 3, 4)]
    pcam += [f"Table 4, #{i}" for i in (1, 2, 3, 4)]
    assert {*pcam} - wrong == {"Table 3, before #4", "Table 4, #4"} and wrong <= {*pcam}
    assert len(found) == 12 + 8
    shares = verdicts(findings, "one share of positive images")
    assert sorted(shares) == [("Table 3", "contradicts"), ("Table 4", "contradicts")]


def test_the_four_counts_come_from_one_conv_stack(findings):
    listed = verdicts(findings, "of the layers that Table 2 lists")
    assert listed == [
        *((f"Table 2, native{i}", "contradicts") for i in (1, 2, 3)),
        ("Table 2, native4", "explained"),  # by the BatchNorm alone
    ]
    shared = verdicts(findings, "331,190")
    assert shared == [
        ("Table 2, Model#1 (200, 200)", "consistent"),
        ("Table 2, Model#2 (100, 100)", "contradicts"),
        ("Table 2, Model#3 (300, 200)", "consistent"),
        ("Table 2, Model#4 (200, 50)", "consistent"),
        ("Table 2", "consistent"),  # with dense layers of (100, 50)
    ]
    built = verdicts(findings, "Model#4's convolutions")
    assert built == [(f"Table 2, native{i}_counted", "consistent") for i in (1, 2, 3, 4)]


def test_what_the_other_papers_say_of_themselves(findings):
    assert verdicts(findings, "13 convolutions, and of no other") == [
        ("Section 3.5 and Figure 18", "contradicts")
    ]
    assert {v for _, v in verdicts(findings, "counts are those of 13 conv")} == {"consistent"}
    ruled_out = verdicts(findings, "counts are those of 14 conv")
    assert {verdict for _, verdict in ruled_out} == {"reading ruled out"}
    assert verdicts(findings, "confusion matrix", "1370") == [("Figure 23", "consistent")]
    assert verdicts(findings, "1,484", "1481 images") == [("Section 4 and Table 1", "contradicts")]
    assert verdicts(findings, "accuracy of 63%", "65.1") == [
        ("Abstract and Table 5", "contradicts")
    ]
    assert {v for _, v in verdicts(findings, "33.098")} == {"consistent"}
    assert verdicts(findings, "3·4,228,291 + 3") == [("Section 5.3.1, cervixnet1", "consistent")]
    log = verdicts(findings, "Each validation accuracy", "whole number")
    assert log == [(f"Figure 20, Epoch {i}", "consistent") for i in (1, 2, 3, 4)]
    assert verdicts(findings, "732 + 184 = 916") == [("Section 3.2", "contradicts")]
    assert verdicts(findings, "Miliary's or Fibro") == [("Table 1", "cannot be checked")]


def test_where_the_cervix_papers_validation_losses_lie_above_its_test_losses(nodes, findings):
    """The signs and differences that its audit gives for an L2 term in them."""
    rows = [
        *(
            (row, row.run["model.stages.head.l2"])
            for row in parse_paper(nodes["cervix_table2"]).rows
        ),
        *(
            (row, 1)
            for row in parse_paper(nodes["cervix_table5"]).rows
            if row.label != "CervixNet-1"
        ),
    ]  # CervixNet-1 of Table 5 is the first row of Table 2
    gaps: dict[bool, list[float]] = {True: [], False: []}
    for row, l2 in rows:
        val, test = (float(text) for name, text in row.reported.items() if "oss" in name)
        gaps[l2 > 0].append(val - test)
    assert [gap > 0 for gap in gaps[True]].count(True) == 3 and len(gaps[True]) == 4
    assert len(gaps[False]) == 3 and max(gaps[False]) < 0
    (found,) = (one for one in findings if "hold the L2 term" in one["claim"])
    assert found["verdict"] == "cannot be checked"
    for gap in (*gaps[True], *gaps[False]):
        assert f"{gap:+.4f}".replace("0.", ".") in found["arithmetic"]
    assert math.comb(4, 3) / math.comb(7, 3) == 4 / 35


def test_the_tables_of_ldct_agree(findings):
    own = [one for one in findings if "LDCT" in one["paper"]]
    assert {one["verdict"] for one in own if one["where"].startswith("Table")} == {"consistent"}
    groups = [where for where, _ in verdicts(own, "1,041 and 632")]
    assert groups == [f"Table 2, M{i}" for i in (1, 2, 3, 4)]
    assert verdicts(own, "2526 + 4165 = 6,691") == [("Section 3.2", "consistent")]
    others = [(one["where"], one["verdict"]) for one in own if one["verdict"] != "consistent"]
    assert others == [
        ("Sections 3.1 and 3.2", "explained"),
        ("Abstract and Section 3.2", "contradicts"),
        ("Section 3.2", "explained"),
    ]


def test_contradictions_are_beyond_what_rounding_explains(findings, nodes):
    """Those of F1, worked out once more: no numbers that print as reported fit."""
    rows = {row.label: row.reported for row in parse_paper(nodes["pcam_table4"]).rows}
    for label in ("#1", "#2", "#3"):
        (_, p), (_, r) = (rounding(rows[label][c]) for c in ("Precision", "Recall"))
        (p0, _), (r0, _) = (rounding(rows[label][c]) for c in ("Precision", "Recall"))
        low, high = rounding(rows[label]["F1 score"])
        assert 2 * p * r / (p + r) < low or 2 * p0 * r0 / (p0 + r0) > high


# ---------------------------------------------------------------- the command


def test_the_list_of_papers(command):
    text = command()
    for name in NAMES:
        assert f" {name} " in text
    assert "Accuracy, Precision, Recall" in text and "medexp train -m paper=NAME" in text
    assert " as pcam_table4; for dataset=pcam" in " ".join(text.split())
    rows = {row["paper"]: row for row in json.loads(command("--json"))}
    assert rows["ldct_table2"]["runs"] == 4 and len(rows["ldct_table2"]["rows"]) == 8
    assert rows["pcam_fig3"]["columns"] == [] and rows["pcam_fig3"]["runs"] == 64
    assert rows["tbt_table1"]["runs"] == 5  # the video run is one
    assert rows["tbt_table2"]["command"] == "medexp train -m paper=tbt_table2"
    assert rows["cervix_table5"]["budgets"] == ["smoke", "quick", "full"]


def test_the_audit_of_a_table_and_of_a_paper(command):
    text = command("audit", "ldct")
    assert text.startswith(
        "Alghamdi et al., lung cancer from LDCT slices\ncontradicts: 1; explained: 2; "
    )
    assert text.index("\nCONTRADICTS") < text.index("\nEXPLAINED") < text.index("\nCONSISTENT")
    assert "Cervix" not in text and "M4: 1,535/1,673 = 91.75; reported 91.75" in text
    table = json.loads(command("audit", "pcam_table3", "--json"))
    assert {one["verdict"] for one in table} == {"consistent", "contradicts", "reading ruled out"}
    assert not [one for one in table if "Table 2" in one["where"] or "Table 4" in one["where"]]
    with pytest.raises(ConfigError, match="pcam_table5: no such table or paper. Did you mean"):
        papers.papers(["audit", "pcam_table5"])


def test_a_papers_own_tables_are_found_once(nodes):
    both = audit.audit_of([nodes["ldct_table1"], nodes["ldct_table1"]])
    assert both == audit.audit_of([nodes["ldct_table1"]])
    assert json.loads(json.dumps(both)) == both
    whole = audit.audit_of_table(nodes["ldct_table2"])
    assert {one["where"].partition(",")[0] for one in whole} >= {"Table 2", "Abstract"}
    assert all(one in whole for one in audit.audit_of([nodes["ldct_table2"], nodes["ldct"]]))
    alone = audit.audit_of_table(nodes["ldct_table2"] | {"citation": "of another"})
    assert {one["where"].partition(",")[0] for one in alone} == {"Table 2"}


OTHER = {
    "title": "Doe, toys",
    "citation": "Jane Doe: Toys (2020)",
    "table": "Table 7",
    "dataset": "toy",
    "columns": [
        {"name": "P", "metric": "precision_binary", "digits": 2},
        {"name": "R", "metric": "recall_binary", "digits": 2},
        {"name": "F", "metric": "f1_binary", "digits": 2},
    ],
    "rows": [
        {"label": "good", "reported": {"P": "0.50", "R": "0.50", "F": "0.50"}, "run": {"seed": 1}},
        {"label": "bad", "reported": {"P": "0.50", "R": "0.50", "F": "0.60"}},
    ],
    "audit": [
        {"check": "numbers", "claim": "All images", "reported": "100", "counted": "60 + 30"},
        {"check": "parameters", "claim": "The paper's count", "models": ["mine"]},
    ],
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder of groups of a user's own, with a paper and a network."""
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper/doe.yaml").write_text("# Toys\n" + yaml.safe_dump(OTHER))
    (tmp_path / "model").mkdir()
    about = {"input": [3, 16, 16], "reported_parameters": 515}
    model = {"_target_": "toy.Net", "width": 8, "about": about}
    (tmp_path / "model/mine.yaml").write_text(yaml.safe_dump(model))
    monkeypatch.syspath_prepend(str(MINE))  # as the dispatcher does with --config-dir
    return tmp_path


def test_a_paper_of_a_users_own_is_listed_and_audited(command, own):
    listed = command("--config-dir", own)
    assert "Doe, toys" in listed and " doe " in listed and " pcam_table4 " in listed
    text = command("audit", "doe", "--config-dir", own)
    verdicts = [line.partition(":")[0] for line in text.splitlines() if line[:4].isupper()]
    assert verdicts == sorted(verdicts, reverse=True) and len({*verdicts}) == 2, text
    assert text.startswith("Doe, toys\ncontradicts: 3; consistent: 1\n")
    assert "60 + 30 = 90; reported 100" in text
    # 3x3x3x8+8 of the convolution, 16 of BatchNorm, 128x2+2 of the head: 498
    assert "mine: 498 trainable (-17); reported 515" in text
    assert command("audit", "toy", "--config-dir", own) == text


def test_a_network_is_counted_as_its_overrides_make_it(own):
    arguments = ["--config-dir", str(own)]
    narrow = audit.parameters_of("mine", ["model.width=4"], arguments)
    # 3x3x3x4+4 of the convolution, 8 of BatchNorm, 64x2+2 of the head
    assert narrow == [Count("trainable", 250, 515)]
    about = {"input": [3, 16, 16], "reported_total": 515}
    model = {"_target_": "toy.Net", "width": 8, "about": about}
    (own / "model/mine.yaml").write_text(yaml.safe_dump(model))
    assert audit.parameters_of("mine", [], arguments) == [Count("in all", 514, 515)]


def test_a_table_that_is_named_twice_is_audited_once(nodes):
    tables = [name for name in nodes if name.startswith("pcam")]
    assert papers.chosen(["pcam_table3", "pcam"], nodes) == sorted(tables, key="pcam_table3".__ne__)


def test_a_paper_that_is_no_table_is_told(own):
    (own / "paper/doe.yaml").write_text("- a\n")
    with pytest.raises(ConfigError, match="paper=doe: composes to no table"):
        papers.papers(["--config-dir", str(own)])


def test_a_paper_that_asks_for_an_unknown_network_is_told(own):
    node = OTHER | {"audit": [{"check": "parameters", "claim": "x", "models": ["native5"]}]}
    with pytest.raises(Exception, match=r"audit\[0\]: model=native5: no such option. Did you mean"):
        audit.audit_of([node])
