"""Text to ids and back; long texts are cut, and told.

What a folder says about its tokenizer is read in files. Imports: files, backends.
"""
