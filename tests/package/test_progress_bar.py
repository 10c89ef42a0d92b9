"""The progress line: items pass unchanged; stderr is touched on a terminal or when asked."""

import io
import itertools

import pytest

from refimpl import progress as module
from refimpl.progress import BAR_WIDTH, Progress, duration, line, progress, rate


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


def test_progress_names_what_is_in_hand_and_not_at_the_end(monkeypatch):
    drawn = shown(monkeypatch, Terminal(), ["one", "two"], name=lambda item: item.upper())
    lines = [part.rstrip() for part in drawn.split("\r")]
    assert any(part.endswith("0/2  ONE") for part in lines)
    assert any(part.endswith("1/2  TWO") for part in lines)
    assert lines[-1].endswith("2/2")


def test_progress_without_anything_to_count_says_what_is_done(monkeypatch):
    monkeypatch.setattr("sys.stderr", stream := Terminal())
    with Progress("work") as p:
        p.now("looking")
    assert stream.getvalue().endswith("work  looking\n")


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


@pytest.mark.parametrize(
    ("arguments", "end"),
    [
        ((5, 10, 2.0), "5/10  2.5/s  2 s left"),
        ((10, 10, 2.0), "10/10  5.0/s  in 2 s"),
        ((5, 10, 0.9), "5/10"),  # too soon to tell
        ((0, 10, 9.0), "0/10"),
        ((861, None, 600.0, 0.25), "25%  861  1.4/s  30:00 left"),
        ((861, None, 2.0), "861  430/s  in 2 s"),
    ],
)
def test_rate_and_time_left(arguments, end):
    assert line("x", *arguments).endswith(end)


def test_rates_and_durations_are_readable():
    assert [rate(x) for x in (0.0123, 3.21, 163.2, 12345.6)] == ["0.012", "3.2", "163", "12,346"]
    assert [duration(x) for x in (0.2, 59.4, 59.6, 3723)] == ["0 s", "59 s", "1:00", "1:02:03"]


def test_shorter_line_covers_the_longer_one_before_it(monkeypatch):
    stream, clock = Terminal(), itertools.count(step=4.0)
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with Progress("work", 2) as shown:
        shown.advance()
        shown.advance()
    lines = stream.getvalue().rstrip("\n").split("\r")[1:]
    assert all(len(b) >= len(a.rstrip()) for a, b in itertools.pairwise(lines))
    assert "1/2" in lines[1] and "left" in lines[1] and "in " in lines[-1]


def test_line_stays_within_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    text = shown(monkeypatch, Terminal(), range(3))
    assert max(map(len, text.rstrip("\n").split("\r"))) == 19
