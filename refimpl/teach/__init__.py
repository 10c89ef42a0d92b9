"""Teaching: a text's way through the model on one page; exercises, and bugs to find.

Imports: reference, text, files, models, tasks, train, verify.
"""
