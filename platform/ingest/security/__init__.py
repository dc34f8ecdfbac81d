"""Who may connect: shared keys, users, client networks and TLS certificates.

Open `settings.py` first.
"""
