"""What every tier process needs: supervision, health, log, telemetry, connections and disk space.

Open `supervisor.py` first: it starts the tiers of `windvane up`.
`health_conditions.py` has what `GET /api/v1/health` reports.
"""
