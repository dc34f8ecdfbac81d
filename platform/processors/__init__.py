"""What becomes of data on its way: pipelines of operations, and the worker that runs them.

Open `operation.py` first: what an operation is, and how a policy's steps become operations. `block.py` has
what they give each other. Then, in the order of a pipeline, `wav.py`, `pcm.py` and `fields.py` make rows of
what was sent, `spectrum.py` and `features.py` (both on `framing.py`) look at samples, and `model.py` (on
`estimators.py`) learns. `presets.py` has pipelines that are ready to use. `pipeline.py` runs the steps of one
data stream, `worker.py` all streams of a partition, `tier.py` the process.
"""
