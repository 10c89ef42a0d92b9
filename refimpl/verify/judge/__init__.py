"""From numbers to a verdict: gates, the first wrong step, the known mistakes that explain it.

Imports: truth, ports, zoo.
"""
