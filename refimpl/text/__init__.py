"""Text to ids and back.

What a folder says about its tokenizer is read in files. Imports: files.
"""
