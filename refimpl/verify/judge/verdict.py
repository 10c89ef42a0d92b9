"""What `verify` gives: verdict, what it covers, first culprit, suspects, and each case, as data.

How it is written down - text, JSON, HTML - is no matter of this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..._version import __version__
from ..findings import Finding, Suspect
from ..truth.compare import Comparison
from .coverage import Coverage, covered
from .slices import Slice

Verdict = Literal["exact-spec", "declared deviation", "fail"]
EXIT_CODES: dict[str, int] = {"exact-spec": 0, "fail": 1, "declared deviation": 3, "incomplete": 4}


@dataclass(frozen=True)
class CaseReport:
    """What one case showed. slices are those of its culprit."""

    name: str
    why: str
    layers: tuple[str, ...]
    comparison: Comparison | None
    slices: tuple[Slice, ...] = ()


@dataclass(frozen=True)
class Report:
    """The result of `verify(port, cases)`. Without a coverage nothing was covered."""

    port: str
    dtype: str
    cases: tuple[CaseReport, ...]
    findings: tuple[Finding, ...]
    suspects: tuple[Suspect, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=lambda: {"refimpl": __version__})
    coverage: Coverage = field(default_factory=lambda: covered({}))

    @property
    def verdict(self) -> Verdict:
        """fail if any finding is one; else a declared deviation if any is; else exact-spec."""
        levels = {finding.level for finding in self.findings}
        if "fail" in levels:
            return "fail"
        return "declared deviation" if "deviation" in levels else "exact-spec"

    @property
    def exit_code(self) -> int:
        """0 exact-spec, 1 fail, 3 declared deviations only, 4 neither fails but not all was shown
        that the user asks for."""
        if self.verdict != "fail" and not self.coverage.enough:
            return EXIT_CODES["incomplete"]
        return EXIT_CODES[self.verdict]

    @property
    def culprit(self) -> tuple[str, str] | None:
        """(case, step): the first step that is wrong by itself, in the first case that has one."""
        for case in self.cases:
            if case.comparison is not None and case.comparison.culprit is not None:
                return case.name, case.comparison.culprit
        return None

    @property
    def smallest_k(self) -> float | None:
        """The safety factor with which every comparison would pass."""
        compared = [c.comparison.smallest_k for c in self.cases if c.comparison is not None]
        return max(compared, default=None)
