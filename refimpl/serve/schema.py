"""Bodies of requests: strict JSON, held against the schema that /openapi.json shows.

    given = parsed(raw)              an object; Refusal 400 for what is no JSON, or none of ours
    checked(given, schema)           Refusal 422 that names the place, the value and what is right

The part of JSON Schema that the routes use: type, properties, required, items, minItems, maxItems,
minimum, maximum, enum, anyOf, default. Unknown properties are left alone, as clients send many.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from ..errors import shown
from .refusals import Refusal

Schema = Mapping[str, Any]
TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


def parsed(raw: bytes) -> dict[str, Any]:
    """The JSON object of a body."""
    try:
        given = _DECODER.decode(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise Refusal(400, f"the body is not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise Refusal(400, f"the body is not JSON: {error}") from None
    except (RecursionError, ValueError) as error:
        raise Refusal(400, f"the body is not JSON: {str(error)[:200]}") from None
    if not isinstance(given, dict):
        raise Refusal(422, f"the body must be an object, not {type(given).__name__}")
    return given


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_number)  # json.loads makes one a call


def checked(given: dict[str, Any], schema: Schema) -> dict[str, Any]:
    """The properties that the schema names, defaults filled in; a null of one with a default is
    that. Raises Refusal."""
    out: dict[str, Any] = {}
    for name, of in schema["properties"].items():
        value = given.get(name)
        if value is None and name in schema.get("required", ()):
            raise Refusal(422, f"{name} is missing")
        if value is None:
            out[name] = of.get("default")
            continue
        _check(value, of, name)
        out[name] = value
    return out


def _check(value: Any, schema: Schema, place: str) -> None:
    if "anyOf" in schema:
        kinds = [of for of in schema["anyOf"] if _is(value, of)]
        if not kinds:
            wanted = " or ".join(_described(of) for of in schema["anyOf"])
            raise Refusal(422, f"{place} is {_shown(value)}; it must be {wanted}")
        problems = []
        for of in kinds:
            try:
                return _check(value, of, place)
            except Refusal as refusal:
                problems.append(refusal)
        raise problems[0]
    if not _is(value, schema):
        raise Refusal(422, f"{place} is {_shown(value)}; it must be {_described(schema)}")
    if "enum" in schema and value not in schema["enum"]:
        known = ", ".join(map(str, schema["enum"]))
        raise Refusal(422, f"{place} is {_shown(value)}; it must be one of {known}")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        least, most = schema.get("minimum"), schema.get("maximum")
        if (least is not None and value < least) or (most is not None and value > most):
            raise Refusal(422, f"{place} is {_shown(value)}; it must be {_range(least, most)}")
    if isinstance(value, list):
        least, most = schema.get("minItems"), schema.get("maxItems")
        if (least is not None and len(value) < least) or (most is not None and len(value) > most):
            raise Refusal(
                422, f"{place} has {len(value)} items; it must have {_range(least, most)}"
            )
        for i, item in enumerate(value):
            _check(item, schema.get("items", {}), f"{place}[{i}]")
    if isinstance(value, dict):
        for name in schema.get("required", ()):
            if value.get(name) is None:
                raise Refusal(422, f"{place}.{name} is missing")
        for name, of in schema.get("properties", {}).items():
            if value.get(name) is not None:
                _check(value[name], of, f"{place}.{name}")


def _shown(value: Any) -> str:
    try:
        return shown(value)
    except RecursionError:  # JSON may nest a little deeper than Python writes
        return f"a {type(value).__name__} of many levels"


def _is(value: Any, schema: Schema) -> bool:
    kind = schema.get("type")
    if kind is None:
        return True
    if isinstance(value, bool) and kind != "boolean":
        return False
    return isinstance(value, TYPES[kind])


def _described(schema: Schema) -> str:
    kind = schema.get("type", "any value")
    if kind == "array":
        item = schema.get("items", {})
        inner = " or ".join(_described(of) for of in item.get("anyOf", (item,)))
        return f"a list of {inner}"
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _range(least: Any, most: Any) -> str:
    if most is None:
        return f"at least {least}"
    return f"at most {most}" if least is None else f"from {least} to {most}"
