"""Settings of the server: one table of flags, each with its environment twin.

    --max-body-bytes N      REFIMPL_SERVE_MAX_BODY_BYTES=N

A flag wins over the environment, that over the default. Raises ValueError that names the flag or
variable, the value and what would be right.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

PREFIX = "REFIMPL_SERVE_"


def setting(default: Any, help: str, **more: Any) -> Any:
    return field(default=default, metadata={"help": help, **more})


@dataclass(frozen=True)
class Settings:
    """What `modernbert serve` is told. Counts are at least 1, seconds at least 0."""

    model: str | None = setting(None, "model folder, or cached hub id (default: the bundled one)")
    backend: str = setting("auto", "auto, native, numpy, or cuda, cuda:1")
    dtype: str = setting("float32", "what to compute in")
    threads: int | None = setting(None, "threads of the engine in each worker (default: its share)")
    served_name: str | None = setting(None, "what answers call the model (default: --model)")
    host: str = setting("127.0.0.1", "address to listen on; 0.0.0.0 for all")
    port: int = setting(8080, "port to listen on; 0 for a free one", least=0, most=65535)
    workers: int = setting(1, "processes that share the loaded model")
    api_key: str | None = setting(None, "ask for it as Authorization: Bearer KEY", secret=True)
    truncate: str = setting("cut", "cut and tell in the answer, or error", among=("cut", "error"))
    max_body_bytes: int = setting(8 * 2**20, "most bytes of a request")
    max_texts: int = setting(2048, "most texts of a request")
    max_request_tokens: int = setting(2**18, "most tokens of a request")
    max_concurrent_requests: int = setting(128, "requests at a time in each worker; then 429")
    max_queue_tokens: int = setting(2**18, "tokens that may wait in each worker; then 429")
    timeout: float = setting(60.0, "seconds for a request, then 503")
    body_timeout: float = setting(10.0, "seconds for a request to arrive, then 408")
    drain_delay: float = setting(0.0, "seconds from SIGTERM in which requests are still taken")
    drain_timeout: float = setting(30.0, "seconds that requests in hand have after that")
    log: str = setting("json", "a line a request on stderr, or none", among=("json", "none"))

    def __post_init__(self) -> None:
        for one in fields(self):
            value, rules = getattr(self, one.name), one.metadata
            if value is None:
                continue
            if "among" in rules and value not in rules["among"]:
                raise ValueError(
                    f"{one.name} is {value!r}; it must be {' or '.join(rules['among'])}"
                )
            if "int" in str(one.type):
                least, most = rules.get("least", 1), rules.get("most", 2**62)
                if not least <= value <= most:
                    raise ValueError(f"{one.name} is {value}; it must be from {least} to {most}")
            elif one.type == "float" and not 0 <= value < float("inf"):
                raise ValueError(f"{one.name} is {value}; it must be a time of at least 0")
        if self.api_key is not None and not self.api_key.isascii():
            raise ValueError("api_key must be ASCII: headers are")

    @classmethod
    def told(
        cls, flags: Mapping[str, Any], environment: Mapping[str, str] | None = None
    ) -> Settings:
        """From flags that were given (None: not), else the environment."""
        environment = os.environ if environment is None else environment
        values: dict[str, Any] = {}
        for one in fields(cls):
            given = flags.get(one.name)
            name = PREFIX + one.name.upper()
            if given is None and environment.get(name):
                given = _typed(name, environment[name], str(one.type))
            if given is not None:
                values[one.name] = given
        return cls(**values)


def _typed(name: str, text: str, kind: str) -> Any:
    try:
        return int(text) if "int" in kind else float(text) if kind == "float" else text
    except ValueError:
        what = "an int" if "int" in kind else "a number"
        raise ValueError(f"{name} is {text!r}; it must be {what}") from None
