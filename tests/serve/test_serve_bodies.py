"""Bodies and settings: what is right is taken, what is wrong is named; no bytes are a fault."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl.serve.openapi import document
from refimpl.serve.refusals import Refusal, body_of
from refimpl.serve.routes import BY_PATH, ROUTES
from refimpl.serve.schema import checked, parsed
from refimpl.serve.settings import PREFIX, Settings


def refused(does, status, said):
    with pytest.raises(Refusal) as found:
        does()
    assert found.value.status == status and said in found.value.message


@pytest.mark.parametrize(
    ("raw", "status", "said"),
    [
        (b"", 400, "not JSON"),
        (b"{", 400, "not JSON"),
        (b'{"a": NaN}', 400, "NaN is no number"),
        (b'{"a": -Infinity}', 400, "-Infinity is no number"),
        (b"\xff{}", 400, "not UTF-8 at byte 0"),
        (b"[" * 100_000, 400, "not JSON"),
        (b'{"a":' * 50_000, 400, "not JSON"),
        (b"[1]", 422, "must be an object, not list"),
        (b'{"inputs": ' + b"1" * 10_000 + b"}", 400, "not JSON"),
    ],
)
def test_bytes_that_are_no_body(raw, status, said):
    refused(lambda: parsed(raw), status, said)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_refused(raw):
    try:
        assert isinstance(parsed(raw), dict)
    except Refusal as refusal:
        assert refusal.status in (400, 422)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)


@given(st.sampled_from(ROUTES), st.data())
def test_any_properties_are_checked_or_refused(route, data):
    body = {name: data.draw(JSON) for name in route.properties if data.draw(st.booleans())}
    try:
        found = checked(body, route.schema)
    except Refusal as refusal:
        assert refusal.status == 422 and refusal.message.split()[0].split("[")[0].split(".")[0]
        return
    assert set(found) == set(route.properties)
    for name in route.required:
        assert found[name] is not None


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_examples_fit_their_schemas(route):
    found = checked(parsed(json.dumps(route.example).encode()), route.schema)
    assert {name: found[name] for name in route.example} == route.example


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/embed", {}, "inputs is missing"),
        ("/embed", {"inputs": None}, "inputs is missing"),
        ("/embed", {"inputs": 5}, "inputs is 5; it must be a string or a list of a string"),
        ("/embed", {"inputs": ["a", 5]}, "inputs[1] is 5; it must be a string"),
        ("/embed", {"inputs": []}, "inputs has 0 items; it must have at least 1"),
        ("/embed", {"inputs": "a", "normalize": 1}, "normalize is 1; it must be a boolean"),
        ("/embed", {"inputs": "a", "dimensions": 0}, "dimensions is 0; it must be from 1"),
        (
            "/embed",
            {"inputs": "a", "dimensions": True},
            "dimensions is True; it must be an integer",
        ),
        ("/v1/embeddings", {"input": "a", "encoding_format": "hex"}, "one of float, base64"),
        ("/rerank", {"query": "a", "documents": [{"x": 1}]}, "documents[0].text is missing"),
        ("/similarity", {"inputs": {"sentences": ["a"]}}, "inputs.source_sentence is missing"),
        ("/decode", {"ids": [-1]}, "ids[0] is -1"),
        ("/predict", {"inputs": [["a", "b", "c"]]}, "inputs"),
    ],
)
def test_wrong_properties_are_named(path, body, said):
    refused(lambda: checked(body, BY_PATH[path].schema), 422, said)


def test_bodies_of_refusals_are_spelled_for_their_clients():
    assert body_of(422, "no", "/embed") == {"error": "no", "error_type": "Validation"}
    kind = {"type": "rate_limit_error", "param": None, "code": 429}
    assert body_of(429, "no", "/v1/embeddings") == {"error": {"message": "no", **kind}}


def test_openapi_lists_every_route():
    found = document(secured=True)
    posts = {path for path, methods in found["paths"].items() if "post" in methods}
    assert posts == set(BY_PATH) and found["security"] == [{"key": []}]
    json.dumps(found, allow_nan=False)


def test_a_flag_wins_over_the_environment_and_that_over_the_default():
    environment = {PREFIX + "PORT": "81", PREFIX + "TIMEOUT": "2.5", PREFIX + "HOST": ""}
    assert Settings.told({}, environment) == Settings(port=81, timeout=2.5)
    assert Settings.told({"port": 82}, environment).port == 82
    assert Settings.told({"port": None}, {}) == Settings()


@pytest.mark.parametrize(
    ("flags", "environment", "said"),
    [
        ({"port": 70_000}, {}, "port is 70000; it must be from 0 to 65535"),
        ({"workers": 0}, {}, "workers is 0; it must be from 1"),
        ({"timeout": -1.0}, {}, "timeout is -1.0; it must be a time"),
        ({"timeout": float("nan")}, {}, "timeout is nan"),
        ({"truncate": "maybe"}, {}, "truncate is 'maybe'; it must be cut or error"),
        ({"api_key": "schlüssel"}, {}, "api_key must be ASCII"),
        ({}, {PREFIX + "PORT": "http"}, "REFIMPL_SERVE_PORT is 'http'; it must be an int"),
        ({}, {PREFIX + "TIMEOUT": "x"}, "REFIMPL_SERVE_TIMEOUT is 'x'; it must be a number"),
    ],
)
def test_wrong_settings_are_named(flags, environment, said):
    with pytest.raises(ValueError, match=said):
        Settings.told(flags, environment)
