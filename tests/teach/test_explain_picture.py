"""`--svg`: the picture of one head or one layer is well-formed, and its cells are the probs."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from support.text_folders import model_folder

import refimpl
from refimpl.models.model import BUNDLED
from refimpl.teach.page.explained import explained
from refimpl.teach.page.picture import MOST_OF_ALL, MOST_OF_ONE, picture, shade

pytest.importorskip("tokenizers")

SVG = "{http://www.w3.org/2000/svg}"
LONG = "the cat sat on a mat and " * 9


def maps_of(found, folder, layer):
    model = refimpl.load(folder, backend="numpy", dtype="float64")
    return model([found.ids], output_attentions=True)["attentions"][layer][0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("picture"), "masked_lm")


def test_cells_of_a_head_are_its_probs(folder):
    found = explained("for i in [MASK](10): <b>&\u202e", folder)
    maps, n = maps_of(found, folder, 1), len(found.ids)
    root = ET.fromstring(picture(found, layer=1, head=1))
    cells = [r for r in root.iter(f"{SVG}rect") if r.find(f"{SVG}title") is not None]
    window = found.config.window(1)
    seen = [(i, j) for i in range(n) for j in range(n) if abs(i - j) <= window]
    assert len(cells) == len(seen) < n * n
    for cell, (i, j) in zip(cells, seen, strict=True):
        said = f"{found.tokens[i]} looks at {found.tokens[j]}: {maps[1, i, j]:.4f}"
        assert cell.find(f"{SVG}title").text == said
        assert cell.get("fill") == shade(maps[1, i, j])


def test_short_text_has_its_numbers_in_the_cells():
    found = explained("for i in [MASK]")
    maps = maps_of(found, BUNDLED, 0)
    root = ET.fromstring(picture(found, layer=0, head=2))
    written = [t.text for t in root.iter(f"{SVG}text") if re.fullmatch(r"\d\.\d\d", t.text)]
    assert written == [f"{p:.2f}" for p in maps[2].ravel()]


def test_layer_shows_every_head(folder):
    found = explained(LONG, folder)
    text = picture(found, layer=1)
    root = ET.fromstring(text)
    assert [t.text for t in root.iter(f"{SVG}text")][2:] == ["head 0", "head 1"]
    covered = [0, 0]
    for path in root.iter(f"{SVG}path"):
        for x, wide, tall in re.findall(r"M(\d+) \d+h(\d+)v(\d+)H", path.get("d") or ""):
            covered[int(x) > 16 + 5 * MOST_OF_ALL] += int(wide) // int(tall)
    window = found.config.window(1)
    n = MOST_OF_ALL
    seen = sum(min(n - 1, i + window) - max(0, i - window) + 1 for i in range(n))
    assert covered == [seen, seen]
    assert len(text) < 1e6


@pytest.mark.parametrize(("head", "most"), [(None, MOST_OF_ALL), (0, MOST_OF_ONE)])
def test_long_text_gives_the_part_around_its_centre(folder, head, most):
    found = explained(LONG, folder, tokens=[40])
    root = ET.fromstring(picture(found, 0, head))
    said = re.search(r"tokens (\d+) to (\d+) of (\d+)", root.find(f"{SVG}title").text)
    first, last, seq = map(int, said.groups())
    assert last - first + 1 == most and first <= 40 <= last and seq == len(found.ids)
    few = explained(LONG * 5, folder, tokens=[40], budget=0.35e6)
    assert not few.chosen.whole
    said = re.search(
        r"tokens (\d+) to (\d+)", ET.fromstring(picture(few, 0, head)).find(f"{SVG}title").text
    )
    assert int(said[1]) >= few.chosen.rows[0] and int(said[2]) <= few.chosen.rows[-1]
    probs = maps_of(few, folder, 0)
    first = int(said[1])
    if head is not None:
        titles = [t.text for t in ET.fromstring(picture(few, 0, head)).iter(f"{SVG}title")][1:]
        n = int(said[2]) - first + 1
        part = probs[0, first : first + n, first : first + n]
        assert [t.rsplit(": ", 1)[1] for t in titles] == [f"{p:.4f}" for p in np.ravel(part)]


@pytest.mark.parametrize(("layer", "head", "said"), [
    (3, None, "layer is 3; the model has 3, 0 to 2"), (-1, None, "layer is -1"),
    (0, 2, "head is 2; the model has 2, 0 to 1"),
])  # fmt: skip
def test_layer_and_head_that_are_not_there_are_refused(folder, layer, head, said):
    with pytest.raises(ValueError, match=said):
        picture(explained("a", folder), layer, head)
