"""The worker: reads the bus, runs the pipelines, and commits checkpoints.

Open `worker.py` first. `stream_work.py` is what the worker knows of one stream, `checkpointing.py` commits.
"""
