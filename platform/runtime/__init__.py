"""What every tier process needs: supervision, health, log, telemetry, connections and disk space.

Open `supervisor.py` first: it starts the tiers of `windvane up`. `troubles.py` has the health conditions.
"""
