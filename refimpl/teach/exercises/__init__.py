"""Exercises: an equation to write, or a bug to find in a small port; the kit is referee.

table.py says what an exercise is, bugs.py, training_bugs.py and equations.py have them all,
folder.py makes a student's folder, and referee.py says what is right in it and what is not yet.
given/ holds the ports that students get: whole here, with one thing wrong or missing there.
"""
