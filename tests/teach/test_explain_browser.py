"""The page in real browsers, opened from a file: nothing is asked for, nothing fails, axe finds
nothing, everything is done by keyboard, and every line of numbers is true.

`pytest -m browser` needs chromium and firefox-esr of Debian, and of PyPI websocket-client and
axe-selenium-python. EXPLAIN_SHOTS=FOLDER keeps pictures of the pages, to be looked at.
"""

import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from support.browsers import BROWSERS
from support.text_folders import model_folder

from refimpl.teach.page.explained import explained
from refimpl.teach.page.pages import fitted_page, page

pytestmark = pytest.mark.browser
SHOTS = os.environ.get("EXPLAIN_SHOTS")
TEXT = "for i in [MASK](10):"
LONG = "import numpy as np\nfor i in range(10):\n    print(i)\n" * 40


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    root = tmp_path_factory.mktemp("pages")

    def written(name, text):
        (root / f"{name}.html").write_text(text, encoding="utf-8")
        return (root / f"{name}.html").as_uri()

    one = explained(TEXT)
    folder = model_folder(root, "sequence_classification", id2label={0: "no", 1: "yes"})
    return {
        "one": written("one", page(one)),
        "long": written("long", fitted_page(lambda b: [explained(LONG, budget=b)], 4e6)[1]),
        "both": written("both", page(one, explained("another text, with [MASK] in it"))),
        "classify": written("classify", page(explained("a fine day", folder))),
        "hostile": written("hostile", page(explained("</script><b>\u202e\x00'\"&"))),
    }


@pytest.fixture(scope="module", params=BROWSERS, ids=lambda kind: kind.__name__.lower())
def browser(request):
    with request.param() as opened:
        yield opened


@pytest.fixture
def server():
    """The port of a server on this machine that has nothing."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found.server_port
        found.shutdown()


@pytest.mark.parametrize("name", ["one", "long", "both", "classify", "hostile"])
def test_page_opens_asks_for_nothing_and_fails_nowhere(browser, pages, name):
    browser.open(pages[name])
    browser.until("document.querySelectorAll('main section').length > 15")
    browser.walk()
    assert browser.requests() <= {pages[name]}  # Firefox does not tell of files
    assert browser.run("return performance.getEntriesByType('resource').length") == 0
    assert browser.errors() == []
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth + 1")
    paint = browser.run(
        "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    )
    assert paint is None or paint < 1000


def test_request_and_an_error_would_be_seen(browser, tmp_path, server):
    """The same looks at a page that asks for something, and at one whose policy forbids it."""
    wanted = f"http://127.0.0.1:{server}/picture.png"
    asks = f"<!doctype html><title>x</title><img src='{wanted}'>"
    (tmp_path / "asks.html").write_text(asks)
    browser.open((tmp_path / "asks.html").as_uri())
    assert wanted in browser.requests()
    policy = "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'\">"
    (tmp_path / "forbids.html").write_text(asks.replace("<title>", policy + "<title>"))
    browser.open((tmp_path / "forbids.html").as_uri())
    browser.settled()
    assert browser.errors()
