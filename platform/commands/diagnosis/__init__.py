"""What `windvane doctor` checks, a module for each part of an installation; begin with `finding.py`."""
