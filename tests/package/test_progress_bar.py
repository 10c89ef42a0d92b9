"""The progress bar: items pass unchanged; stderr is touched on a terminal or when asked."""

import io

import pytest

from refimpl.progress import BAR_WIDTH, line, progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(monkeypatch, stream, items, **options):
    monkeypatch.setattr("sys.stderr", stream)
    assert list(progress(items, "work", **options)) == list(items)
    return stream.getvalue()


def test_progress_is_silent_off_a_terminal(monkeypatch):
    assert shown(monkeypatch, io.StringIO(), [1, 2, 3]) == ""


def test_progress_can_be_silenced_on_a_terminal(monkeypatch):
    assert shown(monkeypatch, Terminal(), [1, 2, 3], verbose=False) == ""


@pytest.mark.parametrize(
    ("stream", "verbose"), [(Terminal(), None), (io.StringIO(), True), (Terminal(), True)]
)
def test_progress_shows_first_and_last_count(monkeypatch, stream, verbose):
    text = shown(monkeypatch, stream, range(3), verbose=verbose)
    assert text.startswith("\rwork [........................] 0/3")
    assert text.endswith("\rwork [########################] 3/3\n")
    assert "\x1b" not in text, "no colour, no cursor sequences"


def test_progress_of_unknown_length_counts(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    assert list(progress(iter("abc"), "work", verbose=True)) == ["a", "b", "c"]
    assert stream.getvalue() == "\rwork 0\rwork 3\n"


def test_progress_ends_its_line_when_the_loop_is_left(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    steps = progress(range(4), "work", verbose=True)
    next(steps)
    next(steps)
    steps.close()
    assert stream.getvalue().endswith("1/4\n")


@pytest.mark.parametrize(("done", "full"), [(0, 0), (1, 3), (7, 21), (8, 24)])
def test_progress_bar_is_proportional(done, full):
    assert line("x", done, 8) == f"x [{'#' * full}{'.' * (BAR_WIDTH - full)}] {done}/8"
