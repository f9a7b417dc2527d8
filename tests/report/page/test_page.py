"""The page of runs: whole, escaped, self-contained, and right in a real browser."""

import hashlib
import html
import io
import json
import re
from base64 import b64decode, b64encode
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import yaml
from markupsafe import escape
from PIL import Image

from medexp.errors import MedexpError
from medexp.report.page import details
from medexp.report.page import page as pages
from medexp.report.page.details import differing, flat
from medexp.report.page.page import duration, embedded, write_page
from medexp.report.table.compare import compare_runs
from medexp.report.table.load import load_run
from medexp.report.table.tables import tables
from medexp.score.checks import VERDICTS
from tests.report.chromium import browser, needed

EVIL = "<script>alert('x')</script>&\""
VOID = {"meta", "br", "img", "link", "hr", "col"}
AUDIT = [
    {"paper": f"{paper}{EVIL}", "where": f"{number}{EVIL}", "verdict": verdict,
     "claim": EVIL, "arithmetic": f"2 * 3 = 6 {EVIL}"}
    for paper, number, verdict in (
        ("one", 1, "consistent"), ("one", 2, "contradicts"), ("two", 3, "cannot be checked"),
    )
]  # fmt: skip

NUMBERS = {
    "images": 1064, "auc_difference": -0.03125, "auc_low": -0.1, "auc_high": 0.05,
    "auc_p": 0.012345, "auc_p_holm": 0.02469, "accuracy_difference": 0.00001,
    "only_a_right": 7, "only_b_right": 12,
    "mcnemar_p": 0.00002, "mcnemar_p_holm": 0.00004,
}  # fmt: skip
NAMED = {"dataset": EVIL, "a": EVIL, "marks_a": f"PHANTOM, {EVIL}", "marks_b": "PHANTOM"}
PAIRS = [
    {**NAMED, "b": "same", **NUMBERS, "reason": None},
    {**NAMED, "b": "other", **dict.fromkeys(NUMBERS), "reason": EVIL},
]


class Tags(HTMLParser):
    """The elements that a browser would see: nested as they should be, with ids and texts."""

    def __init__(self, text):
        super().__init__()
        self.seen, self.open, self.texts = [], [], {}
        self.feed(text)
        self.close()
        assert self.open == []
        ids = [value for _, attributes in self.seen for key, value in attributes if key == "id"]
        assert len(ids) == len(set(ids))
        self.ids = set(ids)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in set(self.open):
            self.texts[tag] = self.texts.get(tag, "") + data

    def all(self, tag, key):
        return [dict(attrs)[key] for name, attrs in self.seen if name == tag and key in dict(attrs)]


def png(path, width=5, height=4):
    Image.new("RGB", (width, height), "teal").save(path)
    return path


def rewrite(path, name, **changed):
    content = json.loads((path / name).read_text()) if (path / name).exists() else {}
    (path / name).write_text(json.dumps(content | changed))


def configured(path, **changed):
    config = yaml.safe_load((path / "config.yaml").read_text())
    (path / "config.yaml").write_text(yaml.safe_dump(config | changed))
    return path


@pytest.fixture
def made(make_run):
    """Runs that ended in every way, as they are read: `made[name]`."""

    def provenance(path, **changed):
        known = {"commit": "c0ffee+", "host": "a host", "device": "cpu", "command": "medexp train",
                 "packages": {"torch": "2.15.0"}, "started": path.name,
                 "data": {"test": {"images": 60, "blake2b": "beef"}}}  # fmt: skip
        (path / "provenance.json").write_text(json.dumps(known | changed))

    phantom = {"PHANTOM": "synthetic"}
    done = make_run("done", marks=phantom, separation=2.0, n=40)
    other = make_run("other", model="native2", marks=phantom | {"PARTIAL": "3 of 1,000 epochs"})
    failed = make_run("failed", model="native3", state="failed", reason="The loss is nan")
    running = make_run("running", model="native4", state="running")
    foreign = make_run("foreign", dataset="ldct", model="ldct_m1", classes=("a", "b", "c"))
    configured(other, seed=7)
    configured(running, trainer={"epochs": 9})
    (running / "history.csv").write_text("epoch,lr\n1,0.1\n2,0.1\n")
    for path in (done, other, foreign):
        provenance(path)
    provenance(other, device="cuda: a card")
    rewrite(done, "metrics.json", wall_seconds=247.0, parameters={"trainable": 9, "total": 9})
    rewrite(other, "metrics.json", parameters={"trainable": 12345, "total": 12345})
    (done / "plots").mkdir()
    png(done / "plots" / "roc.png")
    (done / "eval" / "now" / "explain").mkdir(parents=True)
    png(done / "eval" / "now" / "explain" / "saliency-1.png")
    return {path.name: load_run(path) for path in (done, other, failed, running, foreign)}


def written(runs, **given):
    """The text of the page of some runs and their tables."""
    runs = list(runs)
    with TemporaryDirectory() as folder:
        path = Path(folder, "index.html")
        assert write_page(runs, path, tables=tables(runs), **given) == path
        return path.read_text()


def row_of(text, label):
    """The cells of a run's row in the table of all runs."""
    (table,) = re.findall(r'<section id="runs">.*?</section>', text)
    (row,) = (line for line in re.findall(r"<tr>(.*?)</tr>", table) if f">{label}</a>" in line)
    return [re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]


# ---------------------------------------------------------------- what stands on it


def test_it_is_one_well_formed_file_that_names_no_address(made, tmp_path):
    figure = png(tmp_path / "bars.png")
    text = written(made.values(), audit=AUDIT, comparisons=PAIRS, figures=[figure])
    tags = Tags(text)
    assert {"tables", "runs", "comparisons", "figures", "audit", "settings", "details"} <= tags.ids
    for address in tags.all("a", "href"):
        assert address.startswith("#") and address[1:] in tags.ids
    assert len(tags.all("img", "src")) == 3
    for uri in tags.all("img", "src"):
        assert Image.open(io.BytesIO(b64decode(uri.removeprefix("data:image/png;base64,")))).size
    assert all(tags.all("img", "alt")) and set(tags.all("img", "width")) == {"5"}
    assert not {"button", "link", "iframe", "object", "base", "form"} & {
        tag for tag, _ in tags.seen
    }
    assert "http" not in text.replace("http-equiv", "") and "url(" not in text


def test_its_policy_allows_its_own_script_alone(made):
    text = written(made.values())
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    (script,) = re.findall("<script>(.*?)</script>", text, re.DOTALL)
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; ") and f"script-src 'sha256-{digest}'" in policy
    assert "img-src data:" in policy and "connect-src" not in policy


def test_everything_foreign_is_escaped(make_run, tmp_path):
    run = make_run(
        "x<b>x", model=EVIL, dataset=EVIL, classes=(EVIL, "b"), marks={EVIL: EVIL}, paper=False,
        overrides=(f"x={EVIL}",),
    )  # fmt: skip
    second = make_run("y", model="b", state="failed", reason=EVIL, paper=False)
    configured(run, **{EVIL: {EVIL: [EVIL]}})
    (run / "provenance.json").write_text(json.dumps({EVIL: EVIL, "data": {EVIL: {EVIL: EVIL}}}))
    (run / "plots").mkdir()
    png(run / "plots" / "a<b>&'.png")
    text = written(
        map(load_run, (run, second)), title=EVIL, audit=AUDIT, comparisons=PAIRS,
        figures=[tmp_path / "<b>gone.png"],
    )  # fmt: skip
    tags = Tags(text)
    assert [tag for tag, _ in tags.seen].count("script") == 1 and "b" not in tags.open
    assert text.count("<script") == 1 and "alert('x')" not in text
    assert "&lt;script&gt;alert(&#39;x&#39;)" in text and "<b>gone" not in text
    assert not [key for _, attrs in tags.seen for key, _ in attrs if key.startswith("on")]
    assert EVIL in tags.texts["h1"] and EVIL in tags.texts["pre"]


def test_a_run_without_scores_has_no_number(made):
    text = written(made.values())
    assert row_of(text, "native3")[2:] == ["failed", *["—"] * 6, "0", "—"]
    assert row_of(text, "native4")[2:] == ["running", *["—"] * 6, "2 of 9", "—"]
    assert "2 of 5 runs not done" in text and "The loss is nan" in text
    assert "5 runs: 3 done, 1 failed, 1 running." in text
    assert text.index("The loss is nan") < text.index('<section id="tables">')
    assert "It wrote no provenance.json." in text
    quiet = written([made["done"], made["other"]])
    assert "not done" not in quiet and "It wrote no provenance.json." not in quiet


def test_numbers_are_those_of_metrics_json(made):
    text = written(made.values())
    scored = made["done"].metrics["test"]
    assert row_of(text, "native1")[:3] == ["native1PHANTOM", "pcam", "done"]
    cells = row_of(text, "native1")[3:]
    for key, cell in zip(
        ("accuracy", "auc_binary", "f1_binary", "precision_binary", "recall_binary"), cells,
        strict=False,
    ):  # fmt: skip
        low, high = scored["ci95"][key]
        assert cell == f"{scored[key]:.4f} [{low:.4f}, {high:.4f}]"
    assert cells[5:] == ["9", "3", "4 min 07 s"]
    mean = made["foreign"].metrics["test"]["auc_macro"]
    assert row_of(text, "ldct_m1")[4].startswith(f"{mean:.4f} [")
    exact = f'data-value="{scored["accuracy"]!r}"'
    assert exact in text


def test_marks_open_the_page_with_the_runs_that_have_them(made):
    text = written([made["done"], made["other"]])
    assert '<p class="mark phantom"><strong>PHANTOM</strong> synthetic</p>' in text
    assert "<strong>PARTIAL</strong> 3 of 1,000 epochs (native2)</p>" in text
    assert text.index("<strong>PARTIAL") < text.index('<section id="tables">')
    clean = written([made["foreign"]])
    assert 'class="mark' not in clean and 'class="chip' not in clean


def test_findings_are_grouped_by_paper_with_what_contradicts_first(made):
    (text,) = re.findall(r'<section id="audit">.*?</section>', written([], audit=AUDIT))
    worked = f"2 * 3 = 6 {escape(EVIL)}"
    seen = re.findall(r"<h3>(\w+)|class=\"badge (\w+)\">([^<]*)|<pre>([^<]*)", text)
    assert ["".join(one) for one in seen] == [
        "one", "badcontradicts", worked, "goodconsistent", worked,
        "two", "lookcannot be checked", worked,
    ]  # fmt: skip
    assert "1 contradicts; 1 consistent" in text
    assert 'id="audit"' not in written([made["done"]])


def test_every_verdict_of_the_audit_has_its_colour():
    found = [AUDIT[0] | {"verdict": verdict} for verdict in sorted(VERDICTS)]
    (text,) = re.findall(r'<section id="audit">.*?</section>', written([], audit=found))
    assert re.findall(r"class=\"badge (\w+)\">([^<]*)", text) == [
        ("bad", "contradicts"), ("look", "explained"), ("look", "truncated, not rounded"),
        ("plain", "reading ruled out"), ("look", "cannot be checked"), ("good", "consistent"),
    ]  # fmt: skip
    style = (Path(pages.__file__).parent / "page.css").read_text()
    assert all(f".badge.{kind} {{" in style for kind in ("bad", "good", "look", "plain"))
    assert "; 1 truncated, not rounded; 1 reading ruled out; " in text


def test_pairs_stand_in_a_table_with_their_marks():
    text = written([], comparisons=PAIRS)
    compared, not_compared = re.findall(r"<tr>(<th scope=\"row\".*?)</tr>", text)
    for number in (
        "1,064", "-0.0312 <small>[-0.1000, +0.0500]</small>", "0.0123 <small>Holm 0.0247</small>",
        "+0.0000 ", "7", "12", "&lt;0.0001 <small>Holm &lt;0.0001</small>",
    ):  # fmt: skip
        assert f">{number.strip()}</td>" in compared
    assert 'data-value="-0.03125"' in compared and compared.count(">PHANTOM<") == 1
    assert f"not compared: {escape(EVIL)}" in not_compared and ">PHANTOM<" in not_compared
    assert re.findall(r'data-value="">([^<]*)<', not_compared) == ["—"] * 7
    assert "DeLong et al. (1988)" in text and "<details>" not in text
    assert f"<summary>{pages.MANY_PAIRS + 1} pairs" in written(
        [], comparisons=PAIRS[:1] * (pages.MANY_PAIRS + 1)
    )


def test_real_pairs_can_be_shown(make_run):
    runs = [load_run(make_run(name, model=name)) for name in ("native1", "native2")]
    (pair,) = compare_runs(runs)
    assert set(NUMBERS) | set(NAMED) | {"b", "reason"} <= set(pair)
    assert "native1 less native2" in written(runs, comparisons=[pair])


def test_without_anything_it_says_so():
    tags = Tags(written([]))
    assert "No run." in tags.texts["p"] and not tags.ids


# ---------------------------------------------------------------- settings and provenance


def test_keys_in_which_runs_differ():
    nodes = [
        {"a": {"b": 1, "c": [1, 2]}, "same": {"x": None}, "kind": "1"},
        {"a": {"b": 1.0, "c": [1, 3]}, "same": {"x": None}, "kind": 1, "more": {}},
    ]
    assert list(flat(nodes[0])) == [("a.b", 1), ("a.c", [1, 2]), ("same.x", None), ("kind", "1")]
    assert differing(nodes) == {
        "a.b": ["1", "1.0"], "a.c": ["[1, 2]", "[1, 3]"], "kind": ['"1"', "1"], "more": ["—", "{}"],
    }  # fmt: skip
    assert differing(nodes[:1]) == {} and differing([nodes[0], nodes[0]]) == {}


def test_settings_and_provenance_in_which_runs_differ(made):
    text = written([made["done"], made["other"]])
    (section,) = re.findall(r'<section id="settings">.*?</section>', text)
    assert '<th scope="row">seed</th><td>0</td><td>7</td>' in section
    assert '<th scope="row">device</th><td>cpu</td><td>cuda: a card</td>' in section
    assert "paper." not in section and ">started<" not in section and ">commit<" not in section
    assert "<details>" not in section
    assert 'id="settings"' not in written([made["done"]])
    # A run that wrote no provenance does not differ in all of it.
    assert "<h3>Provenance</h3>" not in written([made["done"], made["failed"]])
    many = [made["done"], made["other"], *[made["done"]] * details.MANY_RUNS]
    (section,) = re.findall(r'<section id="settings">.*?</section>', written(many))
    assert section.count("<details>") == 2


def test_each_run_says_where_it_comes_from(made):
    text = written([made["done"], made["failed"]])
    for fact in ("c0ffee+", "a host", "torch 2.15.0", "test: images 60, blake2b beef"):
        assert fact in text
    assert f"<dd>{made['done'].path}</dd>" in text and "assumption: native1 pools" in text
    config = (made["done"].path / "config.yaml").read_text()
    (shown, _) = re.findall("config.yaml</summary><pre>(.*?)</pre>", text, re.DOTALL)
    assert yaml.safe_load(html.unescape(shown)) == yaml.safe_load(config)
    opened = [dict(attrs) for tag, attrs in Tags(text).seen if tag == "details"]
    assert [one["id"] for one in opened if "open" in one] == ["run-2"]
    (made["done"].path / "provenance.json").write_text("{")
    with pytest.raises(MedexpError, match="provenance.json: cannot be read as JSON"):
        written([made["done"]])


def test_duration():
    assert [duration(s) for s in (0.04, 59.9, 59.96, 61, 3599.4, 3599.6, 7261)] == [
        "0.0 s", "59.9 s", "1 min 00 s", "1 min 01 s", "59 min 59 s", "1 h 00 min", "2 h 01 min",
    ]  # fmt: skip


# ---------------------------------------------------------------- pictures


def test_pictures_are_kept_up_to_a_size_and_what_is_left_out_is_said(made, tmp_path, monkeypatch):
    first, second, small = tmp_path / "1.png", tmp_path / "2.png", png(tmp_path / "small.png")
    for path in (first, second):
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
        Image.fromarray(noise).save(path)
    text = tmp_path / "no.png"
    text.write_text("none")
    most = first.stat().st_size + 2 * small.stat().st_size
    kept, without = embedded([first, second, text, tmp_path / "gone.png", small], most)
    assert list(kept) == [first, small] and kept[first] == first.read_bytes()
    assert list(without) == [second, text, tmp_path / "gone.png"]
    assert "at most" in without[second] and without[text] == "is no PNG"
    assert without[tmp_path / "gone.png"] == "cannot be read: No such file or directory"

    monkeypatch.setattr(pages, "MOST", 1)
    shown = written([made["done"]], figures=[first])
    assert "3 pictures left out" in shown and str(first) in shown and "<img" not in shown
    assert "left out" not in written([made["failed"]])


def test_pictures_of_a_run_are_its_plots_and_explanations(made):
    text = written([made["done"]])
    assert Tags(text).all("img", "alt") == [
        "roc: native1 on pcam", "saliency 1: native1 on pcam",
    ]  # fmt: skip
    assert "<figcaption>plots/roc.png</figcaption>" in text
    assert "<figcaption>eval/now/explain/saliency-1.png</figcaption>" in text


# ---------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def shown(made, tmp_path):
    runs = list(made.values())
    figure = png(tmp_path / "wide.png", 2000, 300)
    return write_page(
        runs, tmp_path / "new" / "index.html", tables=tables(runs), audit=AUDIT,
        comparisons=PAIRS, figures=[figure],
    )  # fmt: skip


COLUMN = "[...document.querySelectorAll('#runs tbody tr')].map(row => row.cells[{}].textContent)"


def order(tab, column):
    return [cell.split(" [")[0].strip() for cell in tab.value(COLUMN.format(column))]


@needed
def test_chromium_loads_it_without_a_complaint(tab, shown):
    tab.open(shown)
    assert tab.console == []
    assert tab.value("document.images.length") == 3
    assert tab.value("[...document.images].every(image => image.naturalWidth > 0)")
    # This is how a complaint would look: what is not the page's own does not run.
    spoilt = shown.with_name("spoilt.html")
    spoilt.write_text(shown.read_text().replace("</main>", "<script>let x</script></main>"))
    tab.open(spoilt)
    assert "Content Security Policy" in "".join(tab.console)


@needed
def test_a_click_on_a_heading_sorts_numbers_as_numbers(tab, shown):
    tab.open(shown)
    names = tab.value("[...document.querySelectorAll('#runs thead th')].map(th => th.textContent)")
    at = names.index("Parameters")
    assert order(tab, at) == ["9", "12,345", "—", "—", "1,000"]
    heading = f"#runs thead th:nth-child({at + 1})"
    tab.click(f"{heading} button")
    assert order(tab, at) == ["9", "1,000", "12,345", "—", "—"]
    sorts = "[...document.querySelectorAll('#runs th')].map(th => th.ariaSort).filter(Boolean)"
    assert tab.value(sorts) == ["ascending"]
    assert tab.value(f"document.querySelector('{heading}').ariaSort") == "ascending"
    tab.click(f"{heading} button")
    assert order(tab, at) == ["12,345", "1,000", "9", "—", "—"]
    assert tab.value(sorts) == ["descending"]
    tab.click("#runs thead th:first-child button")
    assert tab.value(sorts) == ["ascending"]
    assert order(tab, 0) == [
        "ldct_m1", "native1PHANTOM", "native2PHANTOM PARTIAL", "native3", "native4",
    ]  # fmt: skip


@needed
@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_the_keyboard_sorts_too(tab, shown, key):
    tab.open(shown)
    focused = "document.activeElement.textContent"
    for _ in range(100):
        tab.press("Tab")
        if tab.value(focused) == "Accuracy":
            break
    assert tab.value(focused) == "Accuracy"
    tab.press(key)
    numbers = [float(cell) for cell in order(tab, 3) if cell != "—"]
    assert numbers == sorted(numbers) and len(set(numbers)) > 1 and order(tab, 3)[-2:] == ["—"] * 2
    tab.press(key)
    assert [float(cell) for cell in order(tab, 3) if cell != "—"] == numbers[::-1]


@needed
def test_a_link_to_a_run_unfolds_it(tab, shown):
    tab.open(shown)
    assert tab.value("document.querySelector('#run-1').open") is False
    tab.click('#runs a[href="#run-1"]')
    assert tab.until("document.querySelector('#run-1').open")


@needed
@pytest.mark.parametrize("width", [320, 375, 768, 1280])
def test_it_fits_the_width_of_a_phone(tab, shown, width):
    tab.open(shown, width=width)
    tab.value("for (const one of document.querySelectorAll('details')) one.open = true")
    assert tab.value("innerWidth") == width
    assert tab.value("document.documentElement.scrollWidth") == width
    if width == 375:  # tables are wider than that, and scroll in a box of their own
        assert tab.value("[...document.querySelectorAll('.wide')].some(x => x.scrollWidth > 375)")


@needed
def test_light_and_dark_follow_the_reader(tab, shown, tmp_path):
    seen = {}
    for dark in (False, True):
        tab.open(shown, dark=dark)
        picture = Image.open(tab.screenshot(tmp_path / f"{dark}.png")).convert("L")
        seen[dark] = float(np.median(np.asarray(picture)))
    assert seen[False] > 240 and seen[True] < 40


@needed
def test_it_prints_dark_on_light_within_the_page(tab, shown):
    tab.open(shown, width=688, dark=True, printed=True)  # A4 less its margins
    assert tab.value("document.documentElement.scrollWidth") == 688
    assert tab.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.value("getComputedStyle(document.querySelector('nav')).display") == "none"


@needed
@pytest.mark.parametrize("dark", [False, True])
def test_texts_stand_out_from_their_background(tab, shown, dark):
    """Contrast of 4.5 or more (WCAG 2.2, 1.4.3) of every text that is seen."""
    tab.open(shown, dark=dark)
    tab.value("for (const one of document.querySelectorAll('details')) one.open = true")
    pairs = tab.value("""
      [...document.querySelectorAll('main *')].filter(e => [...e.childNodes].some(
        n => n.nodeType === Node.TEXT_NODE && n.data.trim())).map(e => {
        let b = e;
        while (b && getComputedStyle(b).backgroundColor === 'rgba(0, 0, 0, 0)') b = b.parentElement;
        return [getComputedStyle(e).color, getComputedStyle(b).backgroundColor, e.className];
      })
    """)
    assert len(pairs) > 100
    for text, behind, name in {tuple(pair) for pair in pairs}:
        assert contrast(text, behind) >= 4.5, (text, behind, name)


def contrast(one, other):
    def luminance(colour):
        channels = np.array([int(c) for c in re.findall(r"\d+", colour)[:3]]) / 255
        linear = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
        return linear @ [0.2126, 0.7152, 0.0722]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
