"""One streaming operation per module.

Open `base/operation.py` first: it defines an operation. `spectrum.py` is a short example.
"""
