"""Linters of this project: `words` checks prose against the word table, `functions` the length of functions.

Both read the files that git tracks, and print `file:line: what to change`. `make lint` runs them.
"""
