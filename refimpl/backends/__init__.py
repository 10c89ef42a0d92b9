"""What computes: the choice between numpy and the CPU engine, and the engine.

The extension and its library lie here; backend.py alone imports it. Imports: reference, files.
"""
