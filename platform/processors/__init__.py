"""Pipelines of operations, and the worker that runs them.

Open `operations/base/operation.py` first, then `worker/worker.py`.
"""
