"""Arrays as files of other programs, written block by block, for the command line and for HTTP.

Open `formats.py` first: the table of formats. `rows_to_export.py` has what all of them read, `files.py` what
makes files of it on a disk, `pieces.py` what sends them.
"""
