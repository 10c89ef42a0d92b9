"""The truth: numbers in, numbers out, numpy alone; exact in float64.

Opens no file and knows no backend. Imports: nothing.
"""
