"""The commands of `windvane`, a file for each family; `cli` puts them together.

Open `tiers` first: it starts what everything else talks to. Modules here import what is heavy inside the
command that needs it, so that `windvane --help` answers at once.
"""
