"""What is right, and how far rounding may stray: cases, their steps in float64, budgets, the kit.

Imports: nothing.
"""
