"""The commands of refimpl/serve/README.md, with a server of ours on a free port."""

import subprocess

import pytest
from support.readme import blocks
from support.serving import Server

from refimpl.serve.routes import BY_PATH
from refimpl.serve.settings import PREFIX, Settings

PAGE = "refimpl/serve/README.md"


@pytest.mark.extras
def test_curl_lines_run_as_they_stand():
    pytest.importorskip("uvicorn")
    start, asked = blocks(PAGE, "sh")
    assert "modernbert serve --model FOLDER --port 8080" in start
    server = Server()
    lines = asked.strip().splitlines()
    for line in lines:
        line = line.replace("localhost:8080", f"127.0.0.1:{server.port}")
        run = subprocess.run(["bash", "-ec", f"{line} -f"], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        assert "embedding" in run.stdout or run.stdout.startswith("[[")
    assert len(lines) == 3 and server.end() == 0


def test_page_names_every_route_and_real_settings():
    from support.readme import ROOT

    text = (ROOT / PAGE).read_text(encoding="utf-8")
    assert all(f"`{path}`" in text for path in BY_PATH)
    assert f"{PREFIX}MAX_BODY_BYTES" in text and Settings().max_body_bytes
    for flag in ("truncate", "host", "workers", "drain_delay"):
        assert f"`--{flag.replace('_', '-')}" in text and hasattr(Settings(), flag)
