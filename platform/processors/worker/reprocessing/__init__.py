"""Outputs recomputed from the archive: reprocessing, trials and training on demand.

Open `reprocess.py` first.
"""
