"""What the commands share: the home, options, progress, logs and Ctrl-C.

Open `homes.py` first.
"""
