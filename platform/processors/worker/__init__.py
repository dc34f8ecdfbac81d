"""The worker: reads the bus, runs the pipelines, and commits checkpoints.

Open `worker.py` first. `stream_work.py` has the worker's state of one stream, `checkpointing.py` commits.
"""
