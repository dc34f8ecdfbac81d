"""What becomes of data on its way: pipelines of operations, and the worker that runs them.

Open `operation.py` first: what an operation is, and how a policy's steps become operations. `block.py` has
what they give each other. Then, in the order of a pipeline, `wav.py`, `pcm.py` and `fields.py` make rows of
what was sent, and find gaps in it (`timeline.py`, `gaps.py`). `filter.py`, `resample.py` and `order.py` give
other samples; `spectrum.py`, `welch.py`, `envelope.py`, `kurtosis.py`, `sliding_dft.py` and `features.py`
(all on `framing.py`) look at them, `bands.py`, `best_band.py` and `bearing.py` at spectra, `statistics.py`
(on `moments.py`) at periods of UTC. `model.py` (on `estimators.py`) and `condition.py` learn.
docs/operations.md has the parameters of all. `presets.py` has pipelines that are ready to use. `pipeline.py`
runs the steps of one data stream, `worker.py` all streams of a partition, `tier.py` the process.
"""
