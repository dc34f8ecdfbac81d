"""What `send` reads, as chunks of events: `records` for bytes, lines and JSON lines, `csv_table` for tables.

A table is understood (`csv_dialect`, `csv_numbers`, `csv_columns`) before its first row is sent.
"""
