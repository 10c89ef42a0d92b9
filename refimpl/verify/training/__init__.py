"""A training step judged: loss, gradients, updates; cases, ways in, mistakes, ranking.

step.py is one run as a value, cases.py what is run, zoo*.py the known mistakes, judge.py the way to
a verdict; README.md is its page. The truth is refimpl.train in float64.
Imports: truth, ports, zoo, judge.
"""
