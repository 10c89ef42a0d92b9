"""/openapi.json, made of the table of routes, and the page at /docs that tries them.

The page needs nothing from anywhere else: it reads /openapi.json and sends what it is told.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .._version import __version__
from .routes import ROUTES

PLAIN = {
    "/health": "the process lives",
    "/ready": "requests are taken: 503 while the server starts or stops",
    "/info": "the model, its limits, the digest of its vectors",
    "/metrics": "figures for Prometheus",
    "/v1/models": "the model, as OpenAI lists it",
}
STATUSES = ("400", "401", "408", "413", "415", "422", "424", "429", "503")


def document(secured: bool) -> dict[str, Any]:
    """OpenAPI 3.1."""
    error = {
        "description": "refused",
        "content": {"application/json": {"schema": {"type": "object", "required": ["error"]}}},
    }
    refused = {status: error for status in STATUSES}
    paths: dict[str, Any] = {}
    for path, about in PLAIN.items():
        media = "text/plain" if path == "/metrics" else "application/json"
        answers: dict[str, Any] = {"200": {"description": about, "content": {media: {}}}}
        answers |= {"503": error} if path == "/ready" else {}
        answers |= {"401": error} if path not in ("/health", "/ready") else {}
        paths[path] = {"get": {"summary": about, "responses": answers}}
    for route in ROUTES:
        schema = {k: x for k, x in route.schema.items() if k != "example"}
        body = {"application/json": {"schema": schema, "example": route.example}}
        paths.setdefault(route.path, {})["post"] = {
            "summary": route.about,
            "requestBody": {"required": True, "content": body},
            "responses": {
                "200": {"description": route.about, "content": {"application/json": {}}},
                **refused,
            },
            **({"tags": [route.needs]} if route.needs else {}),
        }
    out: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "modernbert serve", "version": __version__},
        "paths": paths,
    }
    if secured:
        out["components"] = {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}}
        out["security"] = [{"key": []}]
    return out


def page() -> bytes:
    return Path(__file__).with_name("page.html").read_bytes()
