"""/docs in real browsers: every route of the model is asked from it and answers, axe finds nothing.

`pytest -m browser tests/serve` needs the extra serve and what tests/teach needs for its pages.
PAGE_SHOTS=FOLDER keeps pictures, to be looked at.
"""

import os

import pytest
from support.browsers import BROWSERS, Chromium
from support.serving import Server

pytestmark = pytest.mark.browser
pytest.importorskip("uvicorn")

SHOTS = os.environ.get("PAGE_SHOTS")
SENT = """
    const box = document.querySelectorAll('details')[%d];
    box.open = true;
    box.querySelector('button').click();
    const out = box.querySelector('pre');
    while (out.textContent === '' || out.textContent === '...')
        await new Promise(r => setTimeout(r, 10));
    return [box.querySelector('code').textContent.trim(), out.textContent];
"""


@pytest.fixture(scope="module")
def server():
    found = Server()
    yield found
    assert found.end() == 0


@pytest.mark.parametrize("kind", BROWSERS, ids=lambda kind: kind.__name__.lower())
def test_every_route_answers_from_the_page(server, kind):
    with kind() as browser:
        browser.open(f"http://127.0.0.1:{server.port}/docs")
        browser.until("document.getElementById('info').textContent !== '...'")
        info = browser.run("return document.getElementById('info').textContent")
        assert server.ask("/info")[1]["embedding_space"] in info
        off = browser.run("return [...document.querySelectorAll('details')].map(x => x.className)")
        for at, name in enumerate(off):
            route, told = browser.run(SENT % at)
            assert told.startswith("424 in " if name == "off" else "200 in "), (route, told)
        assert "off" in off and "" in off
        assert browser.axe() == []
        if isinstance(browser, Chromium):
            expected = off.count("off")  # a refusal is an error in the browser's log
            assert len(browser.errors()) == expected
            for scheme, width in (("light", 1100), ("dark", 1100), ("light", 390)):
                browser.size(width, 1400, scheme)
                assert browser.axe() == []
                wide = "document.documentElement.scrollWidth > innerWidth"
                assert browser.run(f"return {wide}") is False
                if SHOTS:
                    browser.shot(os.path.join(SHOTS, f"docs-{scheme}-{width}.png"), whole=True)
