"""The HTML report is whole, loads nothing, shows every step, and nobody's text breaks out of it."""

import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from refimpl.verify.findings import Finding, Suspect
from refimpl.verify.judge.coverage import Coverage
from refimpl.verify.judge.slices import slices
from refimpl.verify.judge.verdict import CaseReport, Report
from refimpl.verify.report.html import to_html
from refimpl.verify.report.markup import VOID, element, link
from refimpl.verify.report.plot import number, short
from refimpl.verify.report.report import to_json
from refimpl.verify.report.threads import OWNERS
from refimpl.verify.truth.cases import case
from refimpl.verify.truth.compare import compare
from refimpl.verify.truth.passes import trace
from refimpl.verify.zoo import ZOO
from refimpl.verify.zoo.mistake import with_config

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;</style>"


class Page(HTMLParser):
    """The tree, flattened: tags with attributes, text by enclosing tag; raises when unbalanced."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in VOID, f"<{tag}/> is not allowed"
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else None, data))

    def of(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def text(self):
        return " ".join(data for tag, data in self.texts if tag != "style")


def broken_window(p):
    return with_config(p, local_attention=2 * p.config.local_attention)


def report_of(name, mistake=None, spoil=None):
    """A real comparison of one case."""
    c = case(name)
    p = c.model()
    port = c.model().astype(np.float32)
    taps = trace(mistake(port) if mistake else port)
    taps = {name: x.astype(np.float64) for name, x in taps.items()}
    if spoil:
        spoil(taps)
    comparison = compare(p, taps, "float32")
    culprit = comparison.culprit
    shown = tuple(slices(p, taps, culprit)) if culprit else ()
    return CaseReport(c.name, c.why, p.config.layer_types, comparison, shown)


@pytest.fixture(scope="module")
def wrong():
    """A wrong port, with everything that a report can hold, and hostile text wherever it can be."""

    def nan(taps):
        taps["layers.2.wi"][0, 1] = np.nan

    cases = (
        report_of("one-token"),
        report_of("eight-tokens", broken_window),
        report_of("two-tokens", spoil=nan),
        CaseReport("packed", HOSTILE, ("full_attention",), None),
    )
    findings = (
        Finding("plan", "fail", HOSTILE, "eight-tokens", HOSTILE, {"x": math.inf}),
        Finding("port", "note", "not run", "packed"),
        Finding("runtime", "deviation", "f16 reductions"),
    )
    suspects = (
        Suspect(
            "C8",
            HOSTILE,
            0.9997,
            ("a/b#12", "llama.cpp#3", "https://example.org/?a=1&b=2"),
            ("W4",),
        ),
        Suspect(HOSTILE, "x", -3.0, ("javascript:alert(1)", HOSTILE), (HOSTILE,)),
        Suspect("N1", "x", math.nan),
    )
    report = Report(HOSTILE, "float32", cases, findings, suspects, {"refimpl": HOSTILE})
    return json.loads(json.dumps(to_json(report)))


@pytest.fixture(scope="module")
def page(wrong):
    return Page(to_html(wrong))


def test_nothing_is_loaded_and_nothing_runs(wrong, page):
    loading = {"script", "link", "img", "iframe", "object", "embed", "video", "audio", "use"}
    assert not {tag for tag, _ in page.tags} & loading
    for tag, attrs in page.tags:
        assert not {"src", "srcset", "action", "background"} & attrs.keys()
        assert not [name for name in attrs if name.startswith("on")]
        if "href" in attrs:
            assert tag == "a" and re.match(r"https?://|#", attrs["href"])
    style = "".join(text for tag, text in page.texts if tag == "style")
    assert "url(" not in style and "@import" not in style and "color-scheme" in style
    assert "prefers-color-scheme: dark" in style and "@media print" in style


def test_hostile_text_is_shown_as_text(page):
    assert page.text.count(HOSTILE) >= 8
    assert page.of("title")[0] == {}
    links = [attrs["href"] for attrs in page.of("a") if not attrs["href"].startswith("#")]
    assert links == [
        "https://github.com/a/b/issues/12",
        "https://github.com/ggml-org/llama.cpp/issues/3",
        "https://example.org/?a=1&b=2",
    ]


def test_every_step_has_its_row_with_the_culprit_marked(wrong, page):
    rows = [attrs for attrs in page.of("tr") if "data-tap" in attrs]
    steps = [step["tap"] for c in wrong["cases"] for step in c["steps"]]
    assert [attrs["data-tap"] for attrs in rows] == steps and len(steps) > 150
    marked = [attrs["data-tap"] for attrs in rows if attrs.get("class") == "culprit"]
    assert marked == ["layers.1.attention", "layers.2.wi"]


def test_every_number_of_a_step_is_in_its_row(wrong):
    html = to_html(wrong)
    step = wrong["cases"][1]["steps"][40]
    row = re.search(rf'<tr data-tap="{step["tap"]}".*?</tr>', html.split('id="case-1"')[1])[0]
    for column in ("forced", "cumulative"):
        for part in ("observed", "floor", "budget"):
            assert f">{short(step[column][part]['max'])}<" in row
        assert f">{short(step[column]['ratio'])}<" in row


def test_verdict_culprit_and_gates_come_in_order(wrong, page):
    text = page.text
    assert wrong["verdict"] == "fail" and wrong["culprit"]["tap"] == "layers.1.attention"
    parts = ["This is not ModernBERT yet", "layers.1.attention", "Suspects", "explains 99.97 %",
             "the same here: ", "explains none of it", "Error by layer", "Head map",
             "Findings by gate", "Cases"]  # fmt: skip
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    titles = [data for tag, data in page.texts if tag == "h3"]
    assert titles == ["port", "plan", "runtime"]
    sections = page.of("details")
    assert [s["id"] for s in sections] == [f"case-{i}" for i in range(4)]
    assert ["open" in s for s in sections] == [False, True, False, False]


def test_head_map_has_a_cell_per_head(wrong):
    table = re.search(r'<table class="heads">.*?</table>', to_html(wrong))[0]
    heads = [s for c in wrong["cases"] for s in c["slices"] if s["kind"] == "head"]
    assert len(heads) == 2 and table.count("background:") == len(heads)


def test_a_plot_per_compared_case_stays_within_its_frame(page):
    plots = [attrs for attrs in page.of("svg") if attrs.get("role") == "img"]
    assert len(plots) == 3 and {p["viewbox"] for p in plots} == {"0 0 1000 300"}
    assert all("ratio" in p["aria-label"].lower() for p in plots)
    for line in page.of("polyline"):
        points = [tuple(map(float, p.split(","))) for p in line["points"].split()]
        assert all(0 <= x <= 1000 and 0 <= y <= 300 for x, y in points)
        assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert page.of("path"), "a ratio that is not finite has a mark of its own"


def test_the_budget_line_parts_right_from_wrong(wrong, page):
    """The line stands at 1; marks above it are the steps over budget, as many as in the data."""
    budgets = [float(a["y1"]) for a in page.of("line") if a.get("class") == "budget"]
    assert len(budgets) == 3
    plots = to_html(wrong).split("<figure>")[1:]
    order = [c for c in ("eight-tokens", "one-token", "two-tokens")]
    by_name = {c["name"]: c for c in wrong["cases"]}
    for figure, name in zip(plots, order, strict=True):
        y = float(re.search(r'class="budget" x1="\d+" x2="\d+" y1="([\d.]+)"', figure)[1])
        tick = float(re.search(r'y="([\d.]+)" class="tick">1<', figure)[1])
        assert abs(tick - y) < 5, "the label 1 stands beside the line"
        above = [c for c in re.findall(r'class="dot \w+" cx="[\d.]+" cy="([\d.]+)"', figure)]
        drawn = sum(float(c) < y for c in above) + figure.split("</svg>")[0].count("<path")
        steps = by_name[name]["steps"]
        over = [s[k]["ratio"] for s in steps for k in ("forced", "cumulative")]
        assert drawn == sum(number(r) > 1 for r in over), name


def test_a_right_port_is_called_so_and_has_no_suspects():
    everything = Coverage((27, 27), (1690, 1690), ())
    report = Report("reference", "float32", (report_of("eight-tokens"),), (), coverage=everything)
    page = Page(to_html(to_json(report)))
    assert "Every step agrees" in page.text and "Suspects" not in page.text


def test_a_right_port_that_showed_little_has_no_green_page():
    little = Coverage((1, 27), (66, 1690), ("padding", "packed"), True)
    report = Report("reference", "float32", (report_of("eight-tokens"),), (), coverage=little)
    page = Page(to_html(to_json(report)))
    assert "Every step agrees" not in page.text and "incomplete: exact-spec" in page.text
    assert "padding, packed" in page.text and "66 of 1,690" in page.text
    assert [a["class"] for a in page.of("p") if "verdict" in a.get("class", "")] == [
        "verdict declared"
    ]
    assert "Head map" not in page.text and "over" not in [a.get("class") for a in page.of("span")]


def test_a_report_without_any_case_is_still_a_page():
    page = Page(to_html(to_json(Report("nothing", "float32", (), ()))))
    assert not page.of("svg") and "Findings by gate" in page.text


def test_numbers_are_short_and_not_finite_ones_are_said():
    assert [short(x) for x in (0, 0.25, 1234.5, 1e-7, 2.5e6)] == [
        "0", "0.25", "1234", "1.00e-07", "2.50e+06",
    ]  # fmt: skip
    assert short("inf") == short("nan") == "not finite"


def test_markup_escapes_children_and_attributes():
    assert element("b", "<", element("i", "&"), None, ["x"], class_='"') == (
        '<b class="&quot;">&lt;<i>&amp;</i>x</b>'
    )
    assert link("unknown#1") == "<span>unknown#1</span>"
    assert link("javascript:x").startswith("<span>")


def test_nearly_every_citation_of_the_zoo_has_an_address():
    """Those whose repository nobody could tell for certain stay text."""
    cited = {c for mistake in ZOO.values() for c in mistake.citations}
    assert {c for c in cited if "href" not in link(c)} <= {"astronomical#596", "astronomical#597"}
    assert all(repository.count("/") == 1 for repository in OWNERS.values())
