"""The conformance kit: whether a port of ModernBERT is right, and if not, what is wrong."""
