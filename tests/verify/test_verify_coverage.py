"""What a verdict covers: by name, from the steps that were compared, and never more than that."""

import numpy as np
import pytest

from refimpl.verify.findings import Finding
from refimpl.verify.judge.coverage import ASPECTS, COMPANY, HEADS, NAMES, covered
from refimpl.verify.judge.gates import verify
from refimpl.verify.ports.port import PortResult, ReferencePort
from refimpl.verify.truth.cases import BY_NAME, CASES
from refimpl.verify.truth.passes import config_of
from refimpl.verify.truth.shapes import tap_shapes


def steps(name):
    c = BY_NAME[name]
    return list(tap_shapes(config_of(c.config), c.inputs, c.head))


EVERYTHING = {c.name: steps(c.name) for c in CASES}
OUTPUTS = {name: [*(s for s in all_ if s == "final_norm" or "logits" in s)]
           for name, all_ in EVERYTHING.items()}  # fmt: skip


def test_every_step_of_every_case_is_everything():
    made = covered(EVERYTHING, asked=True, askable=True)
    assert made.complete and made.enough and made.lacking == ()
    assert made.cases == (27, 27) and made.steps == (1786, 1786)
    assert len(set(NAMES)) == len(NAMES)


def test_the_ends_of_every_case_are_enough():
    assert covered(OUTPUTS, asked=True, askable=True).complete


@pytest.mark.parametrize("name", [*ASPECTS, *HEADS])
def test_each_name_is_lacking_when_its_cases_are_not_run(name):
    about = (ASPECTS | HEADS)[name]
    rest = {n: s for n, s in EVERYTHING.items() if not about(BY_NAME[n])}
    assert len(rest) < len(EVERYTHING)
    assert name in covered(rest, asked=True, askable=True).lacking
    # ... and not when one of them is.
    one = next(n for n in EVERYTHING if about(BY_NAME[n]))
    assert name not in covered({**rest, one: EVERYTHING[one]}, asked=True).lacking


@pytest.mark.parametrize("name", list(BY_NAME))
def test_no_case_is_left_out_without_a_word(name):
    rest = {n: s for n, s in EVERYTHING.items() if n != name}
    made = covered(rest, asked=True, askable=True)
    assert not made.complete and made.cases == (26, 27)


def test_early_steps_show_nothing_of_what_comes_after_them():
    early = {n: [s for s in all_ if s in ("embedding", "layers.0.q_rot")]
             for n, all_ in EVERYTHING.items()}  # fmt: skip
    assert set(covered(early).lacking) >= {*ASPECTS, *HEADS}


def test_heads_are_shown_by_all_of_their_scores():
    starts = {**OUTPUTS, "spans": ["final_norm", "start_logits"]}
    assert covered(starts).lacking == ("question_answering",)
    encoder = {name: ["final_norm"] for name in EVERYTHING}
    assert covered(encoder).lacking == tuple(HEADS)


def test_calls_that_could_have_been_asked_for_are_lacking():
    assert covered(EVERYTHING, asked=False, askable=True).lacking == (COMPANY,)
    dump = covered(EVERYTHING)
    assert dump.complete and dump.unasked


def test_what_the_user_does_without_is_enough_but_not_complete():
    encoder = {name: ["final_norm"] for name in EVERYTHING}
    made = covered(encoder, accepted=HEADS)
    assert made.enough and not made.complete
    assert not covered(encoder, accepted=["packed"]).enough
    assert not covered({}, accepted=NAMES).enough


def test_a_verdict_counts_what_was_compared_and_asked():
    names = ["one-token", "two-tokens"]
    report = verify(ReferencePort(), [BY_NAME[name] for name in names], without=NAMES)
    assert report.coverage.cases == (2, 27) and report.exit_code == 0
    assert report.coverage.steps[0] == sum(len(steps(name)) for name in names)
    assert COMPANY not in report.coverage.lacking
    report = verify(ReferencePort(), [BY_NAME["one-token"]], runtime=False, without=NAMES)
    assert COMPANY in report.coverage.lacking


def test_tokens_are_counted_and_a_row_left_out_is_a_case_not_shown():
    real = BY_NAME["mean-65"].real
    some = real & (np.arange(65) < 3)
    made = covered(EVERYTHING, shown={"mean-65": some})
    assert made.complete and made.tokens == (made.tokens[1] - real.sum() + 6, made.tokens[1])
    first = real.copy()
    first[1] = False
    assert covered(EVERYTHING, shown={"mean-65": first}).lacking == ("mean-65",)
    some = np.ones(40, bool)
    some[7] = False  # the sequence of one token
    assert "packed" in covered(EVERYTHING, shown={"packed": some}).lacking


class Narrow(ReferencePort):
    """Takes the width of its cases only, as a compiled graph does."""

    def run(self, request):
        if request.inputs["input_ids"].shape != (5, 8):
            return PortResult(findings=(Finding("port", "note", "not run: width 8 only"),))
        return super().run(request)


class NoPacking(ReferencePort):
    """Takes packed input for all that is known of it, and refuses it when it comes."""

    def run(self, request):
        if "cu_seqlens" in request.inputs:
            note = Finding("port", "note", "refused by the port: no packed input", request.name)
            return PortResult(findings=(note,))
        return super().run(request)


def test_whoever_takes_no_packed_input_was_asked_all_else():
    report = verify(NoPacking(), [BY_NAME["plain-padded"], BY_NAME["packed"]], suspects=False)
    assert COMPANY not in report.coverage.lacking and "packed" in report.coverage.lacking
    assert not report.coverage.unasked


def test_calls_that_a_port_refuses_lack_and_were_made():
    report = verify(Narrow(), [BY_NAME["padding-mixed"]], suspects=False)
    assert report.verdict == "exact-spec" and COMPANY in report.coverage.lacking
    refused = [f.message for f in report.findings if f.gate == "runtime"]
    assert "row 0 alone: not run: width 8 only" in refused
    assert not report.coverage.unasked
