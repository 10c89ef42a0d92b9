"""The page in real browsers, opened from a file: nothing is asked for, nothing fails, axe finds
nothing, everything is done by keyboard, and every line of numbers is true.

`pytest -m browser` needs chromium and firefox-esr of Debian, and of PyPI websocket-client and
axe-selenium-python. EXPLAIN_SHOTS=FOLDER keeps pictures of the pages, to be looked at.
"""

import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.browsers import BROWSERS, Chromium
from support.text_folders import model_folder
from support.true_lines import check, numbers_of

from refimpl.teach.page.explained import explained
from refimpl.teach.page.pages import fitted_page, page, read_page

pytestmark = pytest.mark.browser
SHOTS = os.environ.get("EXPLAIN_SHOTS")
TEXT = "for i in [MASK](10):"
LONG = "import numpy as np\nfor i in range(10):\n    print(i)\n" * 40
BASE = dict(hidden_size=768, intermediate_size=1152, num_hidden_layers=22, num_attention_heads=12,
            local_attention=128, local_rope_theta=1e4)  # fmt: skip
THERE = "document.querySelectorAll('main section').length > 15"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    root = tmp_path_factory.mktemp("pages")

    def written(name, text):
        (root / f"{name}.html").write_text(text, encoding="utf-8")
        return (root / f"{name}.html").as_uri()

    def folder(name, kind, **config):
        (root / name).mkdir()
        return model_folder(root / name, kind, **config)

    one = explained(TEXT)
    labels = folder("labels", "sequence_classification", id2label={0: "no", 1: "yes"})
    bare, base = folder("bare", None), folder("base", "masked_lm", **BASE)
    flat = folder("flat", "masked_lm", num_hidden_layers=2)
    words = "the cat sat on " * 32 + "[MASK]"
    return {
        "one": written("one", page(one)),
        "long": written("long", fitted_page(lambda b: [explained(LONG, budget=b)], 3e6)[1]),
        "both": written("both", page(one, explained("another text, with [MASK] in it"))),
        "depths": written("depths", page(one, explained(TEXT, flat))),
        "classify": written("classify", page(explained("a fine day", labels))),
        "bare": written("bare", page(explained("a fine day", bare))),
        "hostile": written("hostile", page(explained("</script><b>\u202e\x00'\"&"))),
        "base": written("base", fitted_page(lambda b: [explained(words, base, budget=b)], 8e6)[1]),
    }


@pytest.fixture(scope="module", params=BROWSERS, ids=lambda kind: kind.__name__.lower())
def browser(request):
    with request.param() as opened:
        yield opened


def text_of(browser, selector):
    return browser.run(f"return document.querySelector('{selector}').textContent")


def opened(browser, url):
    browser.open(url)
    browser.until(THERE)
    browser.settled()


@pytest.fixture
def server():
    """The port of a server on this machine that has nothing."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found.server_port
        found.shutdown()


@pytest.mark.parametrize(
    "name", ["one", "long", "both", "depths", "classify", "bare", "hostile", "base"]
)
def test_page_opens_asks_for_nothing_and_fails_nowhere(browser, pages, name):
    opened(browser, pages[name])
    browser.walk()
    assert browser.requests() <= {pages[name]}  # Firefox does not tell of files
    assert browser.run("return performance.getEntriesByType('resource').length") == 0
    assert browser.errors() == []
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth + 1")
    paint = browser.run(
        "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    )
    print(f"first paint after {paint} ms")


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


# -- what the page says is true -------------------------------------------------------------------

SET = """
const [layer, head] = document.querySelectorAll('input[type=range]');
for (const [slider, value] of [[layer, %d], [head, %d]]) {
  slider.value = value; slider.dispatchEvent(new Event('input'));
}
document.querySelectorAll('.chips')[0].children[%d].click();
"""


def lines_of(browser):
    """Every line of numbers of the page, one that goes on below put together."""
    texts = browser.run(
        "return [...document.querySelectorAll('pre.numbers')].map(e => e.textContent)"
    )
    return [line for text in texts for line in text.replace("\n  ", " ").split("\n")]


@pytest.mark.parametrize("name", ["one", "classify"])
def test_lines_of_numbers_are_true_and_of_the_page(browser, pages, name):
    about, (arrays,) = read_page(Path(pages[name].removeprefix("file://")).read_text())
    side = about["sides"][0]
    known = {f"{abs(n):.{kept.decimals}f}" for kept in arrays.values() for n in kept.numbers.flat}
    known.add(f"{side['norm_eps']:f}".rstrip("0"))
    checked, seen = 0, set()
    opened(browser, pages[name])
    for layer in range(side["layers"]):
        for head, token in ((0, 0), (1, len(side["ids"]) - 1), (0, 2)):
            browser.run(SET % (layer, head, token))
            browser.walk()
            browser.settled()
            for line in lines_of(browser):
                assert set(numbers_of(line)) <= known, line
                checked += check(line)
                seen.add(line.split("[")[0])
    assert checked >= 12 * side["layers"] * 3
    assert seen >= {"embedding", "attn_norm", "q", "k", "v", "angle", "q_rot", "k_rot", "scores",
                    "probs", "attention", "attn_out", "residual_1", "mlp_norm", "wi", "glu",
                    "mlp_out", "residual_2", "final_norm", "head.norm", "logits"}  # fmt: skip


def shown(kept, *at):
    """A number as it must stand on the page."""
    return f"{kept.integers[at] / 10**kept.decimals:.{kept.decimals}f}"


def cells_of(browser, step):
    browser.run(f"document.querySelector('#step-{step} details').open = true")
    browser.until(f"document.querySelector('#step-{step} table td')")
    rows = f"[...document.querySelectorAll('#step-{step} details tbody tr')]"
    return browser.run(
        f"return {rows}.map(r => [...r.querySelectorAll('td')].map(d => d.innerText))"
    )


def test_tables_show_the_numbers_of_the_page(browser, pages):
    _, (arrays,) = read_page(Path(pages["one"].removeprefix("file://")).read_text())
    opened(browser, pages["one"])
    browser.walk()
    browser.run(SET % (1, 2, 3))
    browser.settled()
    browser.walk()
    v, probs = arrays["layers.1.v"], arrays["layers.1.probs"]
    assert cells_of(browser, "v") == [[shown(v, r, 2, c) for c in range(16)] for r in range(9)]
    assert cells_of(browser, "attention") == [
        [shown(probs, 2, i, j) for j in range(9)] for i in range(9)
    ]
    wide = arrays["layers.1.residual_1"]  # the part with the chosen column, the first of head 2
    assert cells_of(browser, "residual_1") == [
        [shown(wide, r, c) for c in range(128, 144)] for r in range(9)
    ]
    lengths = browser.run(
        "return [...document.querySelectorAll('#step-stream tbody tr')].map("
        "r => [...r.querySelectorAll('td')].map(d => d.textContent))"
    )
    residual, added, more = (arrays[f"lengths.{x}"] for x in ("residual", "attn_out", "mlp_out"))
    assert lengths[0] == [shown(residual, 0, 3), "", ""]
    assert lengths[2] == [shown(residual, 2, 3), shown(added, 1, 3), shown(more, 1, 3)]
    said = browser.run("return [...document.querySelectorAll('#step-lens tr .number')].map("
                       "e => e.textContent)")  # fmt: skip
    asked = arrays["answers.probs"]
    wanted = [[shown(asked, line, 3, n) for n in range(3)] for line in range(4, -1, -1)]
    assert said == [number for line in wanted for number in line]


def test_pictures_are_lighter_where_numbers_are_larger(browser, pages):
    _, (arrays,) = read_page(Path(pages["one"].removeprefix("file://")).read_text())
    opened(browser, pages["one"])
    browser.walk()
    for step, name in (("embedding", "E"), ("residual_2", "layers.0.residual_2"), ("q", None)):
        pixels = browser.run(f"""
            const canvas = document.querySelector('#step-{step} .frame canvas');
            const {{ width, height }} = canvas, context = canvas.getContext('2d');
            return [...context.getImageData(0, 0, width, height).data].filter((_, n) => n % 4 < 3);
        """)
        triples = zip(pixels[::3], pixels[1::3], pixels[2::3], strict=True)
        light = [0.3 * red + 0.59 * green + 0.11 * blue for red, green, blue in triples]
        whole = arrays["layers.0.q"].integers[:, 0] if name is None else arrays[name].integers
        order = sorted(range(len(light)), key=lambda n: whole.flat[n])
        assert len(light) == whole.size
        # Each channel is rounded to 1 of 256.
        assert all(light[a] <= light[b] + 1 for a, b in zip(order, order[1:], strict=False))
        assert light[order[-1]] > light[order[0]] + 100


def test_layer_that_one_of_two_models_lacks_is_told(browser, pages):
    opened(browser, pages["depths"])
    browser.walk()
    browser.run(SET % (3, 0, 1))
    browser.settled()
    browser.walk()
    told = browser.run(
        "return [...document.querySelectorAll('#step-q .side')].map(e => e.innerText)"
    )
    assert "This model has 2 layers." not in told[0] and "q[1, 0] = attn_norm[1]" in told[0]
    assert "This model has 2 layers." in told[1] and "attn_norm[1]" not in told[1]
    chosen = browser.run(
        "return [...document.querySelectorAll('.position')].map(e => e.textContent)"
    )
    assert all("token 1 of 9" in text for text in chosen), "the same text: one token for both"


def test_token_whose_vectors_are_left_out_is_told(browser, pages):
    opened(browser, pages["long"])
    browser.run(SET % (0, 0, 0))
    browser.settled()
    browser.walk()
    told = browser.run("return document.querySelector('#step-q .absent').innerText")
    assert told.startswith("The vectors of token 0 are not on this page")
    assert "modernbert explain --token 0" in told


# -- by keyboard alone ----------------------------------------------------------------------------

FOCUSED = """
const e = document.activeElement;
const name = e.getAttribute('aria-label') || e.textContent || '';
return [e.tagName, e.getAttribute('role') || '', name.slice(0, 60)];
"""


def test_whole_tour_by_keyboard(browser, pages):
    opened(browser, pages["one"])
    browser.press("Tab")
    assert browser.run(FOCUSED)[2] == "To the steps"
    browser.press("Tab")
    assert browser.run(FOCUSED)[1:] == ["radio", "4 [MASK]"]
    browser.press("ArrowRight")
    browser.settled()
    assert browser.run(FOCUSED)[2] == "5 ("
    assert "token 5 of 9" in text_of(browser, ".model")
    browser.press("Home", "End", "ArrowLeft")
    browser.settled()
    assert browser.run(FOCUSED)[2] == "7 ):"
    browser.press("Tab", "ArrowRight")
    browser.settled()
    assert text_of(browser, ".controls output").startswith("1 (of")
    assert "After layer 1" in text_of(browser, ".would-say")
    browser.press("Tab", "ArrowRight", "ArrowRight")
    browser.settled()
    assert text_of(browser, "label:nth-child(2) output").startswith("2 (of")
    browser.press("Tab")
    browser.press("Tab")
    assert browser.run(FOCUSED)[2].startswith("step")
    visited = []
    while not visited or visited[-1] != "step-lens":
        browser.press("Enter")
        browser.settled()
        step = browser.run("return document.querySelector('section.here').id")
        layer = text_of(browser, ".controls output")[0]
        visited.append(step)
        visited.append(layer) if step == "step-q" else None
        assert len(visited) < 100
    assert [x for x in visited if x.isdigit()] == ["1", "2", "3"]
    sections = browser.run("return [...document.querySelectorAll('main section')].map(s => s.id)")
    assert set(sections) - {"step-text"} <= set(visited)


def test_tab_reaches_everything_that_can_be_used(browser, pages):
    opened(browser, pages["one"])
    browser.walk()
    wanted = browser.run("""
        const usable = 'a[href], button, input, select, summary, [tabindex="0"]';
        window.wanted = [...document.querySelectorAll(usable)]
          .filter(e => e.checkVisibility() && !e.disabled && e.tabIndex >= 0);
        window.reached = new Set();
        return window.wanted.length;
    """)
    for _ in range(wanted):
        browser.press("Tab")
        browser.run("window.reached.add(document.activeElement)")
    missed = "return window.wanted.filter(e => !window.reached.has(e)).map(e => e.outerHTML)"
    assert wanted > 60 and browser.run(missed) == []
    pictures = "document.querySelectorAll('.frame canvas, canvas.map')"
    assert browser.run(f"return [...{pictures}].every(e => window.reached.has(e))")


def test_pictures_tables_and_the_switch_by_keyboard(browser, pages):
    opened(browser, pages["one"])
    browser.walk()
    browser.run("document.querySelector('#step-residual_1 .frame canvas').focus()")
    browser.press("ArrowRight", "ArrowRight", "ArrowDown")
    browser.settled()
    said = text_of(browser, "#step-residual_1 figcaption")
    assert said.startswith("residual_1[5, 2] = ")
    assert said.split(" = ")[1] in text_of(browser, "#said")
    assert "residual_1[5, 2] = " in text_of(browser, "#step-residual_1 pre")
    browser.run("document.querySelector('#step-attention canvas.map').focus()")
    browser.press("ArrowUp", "Home", "ArrowRight")
    browser.settled()
    said = text_of(browser, "#step-attention .attention figcaption")
    assert "4 [MASK] looks at 1 for" in said
    browser.run("document.querySelector('#step-v summary').focus()")
    browser.press("Enter")
    browser.settled()
    table = "document.querySelector('#step-v table')"
    browser.until(table)
    assert browser.run(f"return {table}.querySelectorAll('td').length") == 9 * 16 + 1
    before = browser.run(f"return {table}.querySelector('thead th').textContent")
    browser.run("[...document.querySelectorAll('#step-v .turn button')].pop().focus()")
    browser.press("Enter")
    browser.settled()
    after = browser.run(f"return {table}.querySelector('thead th').textContent")
    assert (before, after) == ("0", "16")
    browser.run("document.querySelector('.controls select').focus()")
    browser.press("ArrowDown", "ArrowDown")
    browser.settled()
    assert browser.run("return document.documentElement.dataset.theme") == "dark"


# -- as others see it -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["one", "both", "classify", "bare"])
def test_axe_finds_nothing(browser, pages, name):
    opened(browser, pages[name])
    browser.walk()
    for theme in ("light", "dark"):
        browser.run(
            f"document.documentElement.dataset.theme = '{theme}';"
            "const tables = [...document.querySelectorAll('details')].slice(0, 4);"
            "for (const table of tables) table.open = true"
        )
        browser.settled()
        assert browser.axe() == []
    named = "[...document.querySelectorAll('[role=img], [role=region], [role=radiogroup]')]"
    assert (
        browser.run(f"return {named}.filter(e => !e.ariaLabel && !e.hidden).map(e => e.outerHTML)")
        == []
    )


def test_axe_would_find_something(browser, pages):
    opened(browser, pages["one"])
    browser.run("document.querySelector('main').append(document.createElement('input'))")
    assert any(found.startswith("label") for found in browser.axe())


@pytest.mark.parametrize("width", [390, 820, 1280, 1920])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_every_width_in_both_schemes(browser, pages, width, scheme):
    ids = ("text", "sight", "q_rot", "attention", "wi", "lens")
    if isinstance(browser, Chromium):
        browser.size(width, 1000, scheme)
    else:
        browser.size(width, 1000)
    for name in ("one", "both"):
        opened(browser, pages[name])
        if not isinstance(browser, Chromium):
            browser.run(f"document.documentElement.dataset.theme = '{scheme}'")
        browser.walk()
        paper = browser.run("return getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
        assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
        for step in ids if SHOTS else ():
            browser.run(f"document.getElementById('step-{step}').scrollIntoView()")
            browser.settled()
            kind = type(browser).__name__.lower()
            browser.shot(Path(SHOTS, f"{kind}-{name}-{width}-{scheme}-{step}.png"))
    browser.size(1280, 900)


def test_print_has_no_controls_and_every_picture(browser, pages):
    if not isinstance(browser, Chromium):
        pytest.skip("printing is Chromium's protocol")
    opened(browser, pages["one"])
    browser.size(800, 1000, "dark", media="print")
    paper = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb(255, 255, 255)", "no page of ink"
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert not browser.run("return document.querySelector('.controls').checkVisibility()")
    sizes = "return [...document.querySelectorAll('.frame canvas')].map(c => c.width)"
    assert all(width in (256, 64, 384) for width in browser.run(sizes))
    assert len(browser.call("Page.printToPDF")["data"]) > 50_000
    browser.size(1280, 900)


# -- how it feels ---------------------------------------------------------------------------------

SLIDE = """
const slider = document.querySelector('input[type=range]'), times = [];
for (let layer = 0; layer <= Number(slider.max); layer++) {
  slider.value = layer;
  const from = performance.now();
  slider.dispatchEvent(new Event('input'));
  await new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)));
  times.push(performance.now() - from);
}
return times.sort((a, b) => a - b);
"""


@pytest.mark.parametrize("name", ["base", "long"])
def test_layers_of_a_large_page_follow_the_slider(browser, pages, name, record_property):
    """From the change to the frame after the one that it is drawn in; two frames take 33 ms. Told,
    and not held to a bound: the machine may do other work."""
    opened(browser, pages[name])
    browser.walk()
    for step in ("sight", "attention", "wi"):
        browser.run(f"document.getElementById('step-{step}').scrollIntoView()")
        browser.settled()
        browser.run(SLIDE)  # unpacks the layers
        times = browser.run(SLIDE)
        print(f"{name}, {step}: median {times[len(times) // 2]:.0f} ms, most {times[-1]:.0f} ms")
        record_property(f"{step}: median ms", times[len(times) // 2])
        last = browser.run("return document.querySelector('input[type=range]').max")
        assert len(times) == int(last) + 1
