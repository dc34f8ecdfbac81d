"""The operation `wav`: WAVE files in, samples out, however the bytes are cut.

Open `decoder.py` first: it is the operation. `riff.py` has the format.
"""
