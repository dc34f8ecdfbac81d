"""One data stream's pipeline: archive, steps, outputs and publication.

Open `pipeline.py` first.
"""
