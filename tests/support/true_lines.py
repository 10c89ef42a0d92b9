"""Lines of numbers as a page shows them, held to be true: the numbers left of the last equals sign,
put together as the line says, give the one right of it, to within what rounding each of them to its
digits can do."""

from __future__ import annotations

import ast
import math
import re

LITERAL = re.compile(r"(?<![\w.])\d+\.\d+(?![\w.])")
FUNCTIONS = {
    "exp": math.exp,
    "sqrt": math.sqrt,
    "gelu": lambda x: x / 2 * (1 + math.erf(x / math.sqrt(2))),
}


def numbers_of(line: str) -> list[str]:
    """Every number with a point that stands in a line, without its sign."""
    return LITERAL.findall(line)


def check(line: str, eps: str = "0.00001") -> bool:
    """Whether the line was checked: AssertionError where it is false, False where it leaves terms
    out, or has no numbers to compute with. eps: norm_eps as the page has it, which is exact."""
    line = re.sub(r"\s+\((full|local) layers\)$", "", line)
    parts = [part.replace("^", "**").strip() for part in re.split(r" = ", line.replace("\n", " "))]
    left, found = [p for p in parts[1:-1] if "[" not in p], parts[-1]
    if "more)" in line or "is not on this page" in line or "(the terms" in line or not left:
        return False
    for expression in left:
        value, slack = with_slack(expression, eps)
        off = abs(value - float(found))
        assert off <= 1.05 * slack + half_unit(found), f"{line}: {value} is {off} off"
    return True


def half_unit(literal: str) -> float:
    """Half a unit of the last digit; an integer is exact."""
    return 0.5 * 10.0 ** -len(literal.partition(".")[2]) if "." in literal else 0.0


def with_slack(expression: str, eps: str) -> tuple[float, float]:
    """The value, and the sum of what it changes by when each number moves by half of its unit."""
    places = [m for m in LITERAL.finditer(expression) if m[0] != eps]
    value = computed(expression)
    slack = 0.0
    for m in places:
        moved = f"{float(m[0]) + half_unit(m[0]):.12f}"
        slack += abs(computed(expression[: m.start()] + moved + expression[m.end() :]) - value)
    return value, slack


def computed(expression: str) -> float:
    """The value of an expression of numbers, + - * / ** and FUNCTIONS, and of nothing else."""
    tree = ast.parse(expression, mode="eval")
    allowed = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.Constant, ast.Call, ast.Name, ast.Load,
               ast.operator, ast.unaryop)  # fmt: skip
    assert all(isinstance(node, allowed) for node in ast.walk(tree)), expression
    return float(eval(compile(tree, "line", "eval"), {"__builtins__": {}}, FUNCTIONS))
