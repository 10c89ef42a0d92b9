"""The ways in: a dump, a command, a C library, transformers, ONNX, this package's engine.

Imports: truth.
"""
