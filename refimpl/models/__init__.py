"""Config, weights and backend behind one object.

Imports: reference, text, nlp, files, backends.
"""
