"""What Windvane reaches, each figure next to a named peer or limit measured in the same run.

Open `report.py` first: it prints the table and writes the JSON. From the root of the repository each file is
a program: `python benchmarks/array.py --json array.json`, or `python -m benchmarks.array`.
"""
