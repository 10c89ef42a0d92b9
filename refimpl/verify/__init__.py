"""The conformance kit: whether a port of ModernBERT is right, and if not, what is wrong.

Its own rooms: truth <- ports <- zoo <- judge <- report, and training, which judges a training step.
Imports: reference, files, backends, models, train.
"""
