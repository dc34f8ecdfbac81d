"""Estimators, models, training, condition monitoring and remaining life.

Open `model.py` first for models, `condition.py` for condition monitoring.
"""
