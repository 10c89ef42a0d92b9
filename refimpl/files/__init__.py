"""Model folders and file formats, read and written.

Folders may name heads of all kinds, which is why it knows them. Imports: reference, nlp.
"""
