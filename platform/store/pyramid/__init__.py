"""Pyramids of data arrays: min, max and mean per power of 64 rows, so that a view costs what its pixels cost.

Open `cells.py` first: it has the layout of a cell, and how cells are computed. `overview.py` answers a range
of rows from the level that fits. Engines keep the cells: see `ArrayReader.levels` and
`StoreEngine.pyramid_writer`.
"""
