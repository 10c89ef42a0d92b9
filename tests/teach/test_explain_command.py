"""`modernbert explain`: what it writes, tells and refuses."""

import sys

import pytest
from support.command import Stdin

from refimpl.cli import main
from refimpl.models.model import BUNDLED
from refimpl.teach.page.explained import explained
from refimpl.teach.page.pages import page, read_page
from refimpl.teach.page.picture import picture

pytest.importorskip("tokenizers")

TEXT = "for i in [MASK](10):"


@pytest.fixture
def explain(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def call(*argv, stdin=b"", code=0):
        monkeypatch.setattr(sys, "stdin", Stdin(stdin))
        found = main(["explain", *map(str, argv)])
        out, err = capsys.readouterr()
        assert (found, out) == (code, ""), err
        return err

    return call


def test_page_is_that_of_python(explain, tmp_path):
    err = explain(TEXT)
    assert err.startswith("modernbert explain: wrote explain.html: ") and err.count("\n") == 1
    written = (tmp_path / "explain.html").read_text(encoding="utf-8")
    assert written == page(explained(TEXT))
    explain(TEXT, "--out", "page.html", "--model", BUNDLED)
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == written


def test_text_is_read_from_standard_input(explain, tmp_path):
    explain("-", stdin=b"zwei\nZeilen")
    about, _ = read_page((tmp_path / "explain.html").read_text(encoding="utf-8"))
    assert about["sides"][0]["text"] == "zwei\nZeilen"
    assert "standard input is not UTF-8" in explain("-", stdin=b"a\xff", code=1)


def test_comparison_has_two_sides(explain, tmp_path):
    explain(TEXT, "--beside", "other", "--beside-model", BUNDLED, "--token", 1)
    about, _ = read_page((tmp_path / "explain.html").read_text(encoding="utf-8"))
    assert [side["text"] for side in about["sides"]] == [TEXT, "other"]
    assert [side["centre"] for side in about["sides"]] == [1, 1]
    explain(TEXT, "--beside-model", BUNDLED)
    about, _ = read_page((tmp_path / "explain.html").read_text(encoding="utf-8"))
    assert [side["text"] for side in about["sides"]] == [TEXT, TEXT]


def test_picture_is_that_of_python(explain, tmp_path):
    explain(TEXT, "--svg", "head.svg", "--layer", 2, "--head", 1)
    assert (tmp_path / "head.svg").read_text(encoding="utf-8") == picture(explained(TEXT), 2, 1)
    explain(TEXT, "--svg", "layer.svg")
    assert (tmp_path / "layer.svg").read_text(encoding="utf-8") == picture(explained(TEXT), 0)


def test_what_is_left_out_is_told(explain):
    err = explain("word " * 200, "--size", 1, "--max-length", 150)
    assert "cut to 150 tokens: 53 tokens lost" in err
    assert " of 150 tokens have their vectors on the page; --token N names" in err


@pytest.mark.parametrize(("argv", "said"), [
    ((TEXT, "--out", "none/page.html"), "there is no folder"),
    ((TEXT, "--out", "."), "is a folder"),
    ((TEXT, "--model", "none"), "none"),
    ((TEXT, "--token", "40"), "tokens: 40 is no token of the text, whose 9 are 0 to 8"),
    ((TEXT, "--svg", "a.svg", "--layer", "4"), "layer is 4; the model has 4, 0 to 3"),
    (("a\udcff",), "lone surrogate"),
    ((TEXT, "--max-length", "4", "--truncate", "error"), "over max_length 4"),
])  # fmt: skip
def test_refusals_are_one_line_and_leave_no_file(explain, tmp_path, argv, said):
    err = explain(*argv, code=1)
    assert said in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("argv", "said"), [
    (("--layer", "1"), "--layer and --head say what --svg draws"),
    (("--svg", "a.svg", "--beside", "b"), "--svg draws one text and one model"),
    (("--svg", "a.svg", "--out", "b.html"), "not allowed with"),
    (("--svg", "a.svg", "--size", "3"), "--size is of a page"),
    (("--size", "0.1"), "must be from 0.5 to 1000"),
    (("--size", "nan"), "must be from 0.5 to 1000"),
    (("--token", "-1"), "must be at least 0"),
])  # fmt: skip
def test_wrong_usage_is_told_before_the_model_is_looked_for(explain, capsys, argv, said):
    with pytest.raises(SystemExit) as ended:
        explain("a", "--model", "none", *argv)
    assert ended.value.code == 2 and said in capsys.readouterr().err
