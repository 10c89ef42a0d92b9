"""What is answered in place of a result: a status, a sentence, and two spellings of a body.

TEI      {"error": sentence, "error_type": Validation | Tokenizer | Backend | Overloaded | ..}
OpenAI   {"error": {"message": sentence, "type": .., "param": null, "code": ..}}      under /v1
"""

from __future__ import annotations

from typing import Any

# Status -> TEI's error_type, OpenAI's type.
KINDS = {
    400: ("Validation", "invalid_request_error"),
    401: ("Unauthorized", "authentication_error"),
    404: ("NotFound", "invalid_request_error"),
    405: ("NotAllowed", "invalid_request_error"),
    408: ("Timeout", "invalid_request_error"),
    413: ("Validation", "invalid_request_error"),
    415: ("Validation", "invalid_request_error"),
    422: ("Validation", "invalid_request_error"),
    424: ("Backend", "invalid_request_error"),
    429: ("Overloaded", "rate_limit_error"),
    431: ("Validation", "invalid_request_error"),
    500: ("Backend", "server_error"),
    503: ("Unhealthy", "server_error"),
}
RETRY_AFTER = {429: "1", 503: "1"}  # seconds


class Refusal(Exception):
    """A request that is answered with an error; `headers` go with it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.headers = {"Retry-After": RETRY_AFTER[status]} if status in RETRY_AFTER else {}


def body_of(status: int, message: str, path: str) -> dict[str, Any]:
    """The body of a refusal, in the spelling that clients of the path expect."""
    tei, openai = KINDS.get(status, KINDS[500])
    if path.startswith("/v1/"):
        kind = {"type": openai, "param": None, "code": status}
        return {"error": {"message": message, **kind}}
    return {"error": message, "error_type": tei}
