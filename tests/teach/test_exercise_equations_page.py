"""The equations that a student's folder holds are those of MODEL.md, section by section.

`python tests/teach/test_exercise_equations_page.py` writes them anew.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "refimpl" / "teach" / "exercises" / "given" / "MODEL.md"
SECTIONS = (1, 2, 3, 4, 5, 6, 7, 9, 10, 12, 14, 15)


def page() -> str:
    text = (ROOT / "MODEL.md").read_text(encoding="utf-8")
    head, *parts = re.split(r"(?m)^(?=## )", text)
    wanted = [p for p in parts if int(re.match(r"## (\d+)\.", p)[1]) in SECTIONS]
    assert len(wanted) == len(SECTIONS)
    # Files of the repository are not beside a student's copy.
    return re.sub(r"\[([^\]\n]+)\]\([^)\n]*\)", r"\1", head + "".join(wanted)).rstrip() + "\n"


def test_students_have_the_equations_as_they_stand():
    assert PAGE.read_text(encoding="utf-8") == page()
    assert "(28)" in page() and "(53)" in page() and "](" not in page()


if __name__ == "__main__":
    sys.exit(PAGE.write_text(page(), encoding="utf-8") and None)
