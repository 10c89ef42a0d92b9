"""Python in a document: its blocks run one after the other and print what their comments say."""

import contextlib
import io
import re

from support.readme import blocks


def promised(block: str) -> list[str]:
    """What stands behind `# ` on each print line."""
    prints = [line for line in block.splitlines() if line.startswith("print(")]
    comments = [re.search(r"\)  # (.+)$", line) for line in prints]
    assert all(comments), "a print without the line that it prints"
    return [comment[1] for comment in comments if comment]


def check(page: str) -> None:
    """Run the page's blocks of Python, which share their names. AssertionError."""
    names: dict = {}
    for block in blocks(page, "python"):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(block, page, "exec"), names)
        printed = [line.strip() for line in out.getvalue().splitlines()]
        assert printed == promised(block), f"{page} promises {promised(block)}, got {printed}"
