"""The built-in types of documents, one module each; `TYPE` is what it defines.

Open `policy.py` first. `document_type.py`, one folder up, defines what a type consists of.
"""
