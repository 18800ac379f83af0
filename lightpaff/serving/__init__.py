"""`lightpaff serve`: an export behind HTTP, in batches, with limits, and its teacher in its shadow where wanted.

Imports neither torch nor transformers, but for the teacher's shadow.
"""
