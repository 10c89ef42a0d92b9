"""Text to ids and back.

Imports: nothing.
"""
