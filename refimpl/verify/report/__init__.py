"""A verdict written down: text, JSON, HTML, pictures.

Imports: truth, zoo, judge.
"""
