"""Ports that take one row at a time, or pad to a length of their own: read as the case has it."""

from dataclasses import replace

import numpy as np
import pytest

from refimpl.verify.findings import Finding
from refimpl.verify.judge.gates import verify
from refimpl.verify.ports.dump import DumpPort
from refimpl.verify.ports.port import PortResult, ReferencePort
from refimpl.verify.truth.cases import case
from refimpl.verify.truth.passes import per_token, trace

CASE = case("plain-padded")
STEPS = trace(CASE.model().astype(np.float32))


def tokens(name):
    return per_token(name, STEPS[name], CASE.real)


def written(folder, rows, form):
    """Each row in a folder of its own, in one of the shapes that ports have."""
    for b in rows:
        at = folder / CASE.name / str(b)
        at.mkdir(parents=True)
        for name, x in STEPS.items():
            np.save(at / f"{name}.npy", form(x[b : b + 1], CASE.real[b]) if tokens(name) else x[b])
    return verify(DumpPort(folder), [CASE], without=("padding",))


FORMS = {
    "as a batch of one": lambda x, real: x,
    "without a batch axis": lambda x, real: x[0],
    "without padding": lambda x, real: x[0, real],
    "as a batch of one without padding": lambda x, real: x[:, real],
    "padded to 32": lambda x, real: np.pad(
        x, ((0, 0), (0, 32 - x.shape[1]), *((0, 0),) * (x.ndim - 2))
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_rows_apart_are_the_batch(tmp_path, form):
    report = written(tmp_path, (0, 1, 2), FORMS[form])
    assert report.verdict == "exact-spec", report.findings
    assert {f.level for f in report.findings} <= {"note"}
    assert len(report.cases[0].comparison.rows) == len(STEPS)
    assert report.coverage.tokens == (22, 22) and "padding" not in report.coverage.lacking


def test_a_row_that_is_left_out_lacks_in_the_coverage(tmp_path):
    report = written(tmp_path, (0, 2), FORMS["as a batch of one"])
    assert report.verdict == "exact-spec", report.findings
    assert report.coverage.tokens == (15, 22) and "padding" in report.coverage.lacking


def test_what_every_row_says_is_said_once(tmp_path):
    written(tmp_path, (0, 1, 2), FORMS["as a batch of one"])
    for b in range(3):
        (tmp_path / CASE.name / str(b) / "layers.1.q.npy").unlink()
    (note,) = verify(DumpPort(tmp_path), [CASE]).findings
    assert note.message == "65 steps are given, 1 not: layers.1.q" and note.case == CASE.name
    np.save(tmp_path / CASE.name / "1" / "scratch.npy", np.zeros(3))
    notes = [f.message for f in verify(DumpPort(tmp_path), [CASE]).findings]
    assert sorted(notes)[1] == "row 1: not used: scratch" and len(notes) == 2


@pytest.mark.heavy
def test_a_wrong_number_in_one_row_is_found(tmp_path):
    written(tmp_path, (0, 1, 2), FORMS["without padding"])
    file = tmp_path / CASE.name / "1" / "layers.2.glu.npy"
    np.save(file, np.load(file) * np.float32(1.001))
    report = verify(DumpPort(tmp_path), [CASE])
    assert report.culprit == (CASE.name, "layers.2.glu")


def test_a_row_that_the_case_lacks_and_rows_of_packed_input_are_refused(tmp_path):
    written(tmp_path, (0, 1, 2), FORMS["as a batch of one"])
    (tmp_path / CASE.name / "1").rename(tmp_path / CASE.name / "3")
    (failure,) = (f for f in verify(DumpPort(tmp_path), [CASE]).findings if f.case)
    assert failure.level == "fail" and "row 3; the case has rows 0 .. 2" in failure.message
    (tmp_path / "packed" / "0").mkdir(parents=True)
    (failure,) = (f for f in verify(DumpPort(tmp_path), [case("packed")]).findings if f.case)
    assert "rows apart do not show packed input" in failure.message


def test_a_batch_padded_to_a_length_of_the_port_is_cut_back(tmp_path):
    at = tmp_path / CASE.name
    at.mkdir()
    for name, x in STEPS.items():
        more = ((0, 0), (0, 20), *((0, 0),) * (x.ndim - 2))
        np.save(at / f"{name}.npy", np.pad(x, more, constant_values=7.0) if tokens(name) else x)
    report = verify(DumpPort(tmp_path), [CASE])
    assert report.verdict == "exact-spec", report.findings


def test_a_normalised_vector_alone_shows_the_encoder_and_a_wrong_one_is_named(tmp_path):
    at = tmp_path / CASE.name
    at.mkdir()
    np.save(at / "mean_normalised.npy", STEPS["mean_normalised"])
    report = verify(DumpPort(tmp_path), [CASE])
    assert report.verdict == "exact-spec" and "padding" not in report.coverage.lacking
    hidden = STEPS["final_norm"].mean(axis=1)
    np.save(at / "mean_normalised.npy", hidden / np.linalg.norm(hidden, axis=-1, keepdims=True))
    report = verify(DumpPort(tmp_path), [CASE])
    assert [s.id for s in report.suspects] == ["H2a"]


class DropsPadding(ReferencePort):
    """Runs the real tokens of each row alone, and so closes up padding that stands between them."""

    def run(self, request):
        ids, mask = request.inputs["input_ids"], request.inputs.get("attention_mask")
        if ids.ndim == 1 or mask is None:
            return super().run(request)
        out: dict[str, np.ndarray] = {}
        for b, row in enumerate(mask != 0):
            inputs = {"input_ids": ids[b : b + 1, row]}
            if not row.any():
                continue
            for name, x in super().run(replace(request, inputs=inputs)).taps.items():
                if name.endswith((".residual_2", "final_norm")):
                    out.setdefault(name, np.zeros((*ids.shape, x.shape[-1]), "f"))[b, row] = x[0]
        return PortResult(out)


def test_a_port_that_drops_padding_is_not_asked_for_padding_between_tokens():
    report = verify(DropsPadding(), [case("plain-padded")])
    assert report.verdict == "exact-spec", report.findings
    assert "holes" in report.coverage.lacking and not report.coverage.unasked


def test_a_row_that_is_closed_up_over_its_padding_is_named_so():
    report = verify(DropsPadding(), [case("cls-padding"), case("padding-mixed")])
    assert report.verdict == "fail" and report.culprit == ("cls-padding", "layers.0.residual_2")
    assert [(s.id, s.explained > 0.9999) for s in report.suspects] == [("R5c", True)]


class NoBiases(ReferencePort):
    """Refuses what published checkpoints do not have."""

    def run(self, request):
        if request.config["norm_bias"]:
            note = Finding("port", "note", "refused by the port: no biases", request.name)
            return PortResult(findings=(note,))
        return super().run(request)


def test_a_row_that_is_left_out_is_not_asked_for_alone():
    class NoHoles(ReferencePort):
        """Leaves out rows with padding between real tokens, as a dump row by row may."""

        def run(self, request):
            result = super().run(request)
            mask = request.inputs["attention_mask"] != 0
            ends = [np.flatnonzero(row) for row in mask]
            whole = [at.size > 0 and np.ptp(at) + 1 == at.size for at in ends]
            if not any(whole):
                return PortResult(findings=(Finding("port", "fail", "nothing", request.name),))
            return replace(result, shown=mask & np.array(whole)[:, None])

    report = verify(NoHoles(abilities=frozenset({"inputs"})), [case("padding-mixed")])
    assert report.verdict == "exact-spec" and "holes" in report.coverage.lacking
    assert "company" not in report.coverage.lacking


def test_a_port_is_asked_in_other_company_on_a_case_that_it_has_answered():
    report = verify(NoBiases(), [case("padding-mixed"), CASE])
    assert not report.coverage.unasked and report.verdict == "exact-spec"
    assert [f.gate for f in report.findings] == ["port"]
