"""Drops what policies no longer keep: `sweep` decides what and when, `drops` carries it out on one stream.

Start with `sweep`, which has the rules. docs/policies.md says what an operator can expect.
"""
