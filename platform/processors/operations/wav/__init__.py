"""The operation `wav`: decodes WAVE files to samples, independent of the cutting of the bytes.

Open `decoder.py` first: it is the operation. `riff.py` has the format.
"""
