"""A text's way through the model as one HTML page, or one picture of it (`modernbert explain`).

    html = page(explained("for i in [MASK](10):"))        pages.py, explained.py
    svg = picture(explained(text), layer=2, head=0)       picture.py

A text is run once in float64 (taken.py keeps the steps, answers.py asks the head at every layer,
chosen.py says whose vectors are kept), its numbers are rounded once (numbers.py), put in blocks
(blocks.py) and into the page with the equations of MODEL.md (equations.py). style.css and script/
are the page's own; pages.py puts them together.
"""
