"""Machinery that knows nothing of the paper: runs and their provenance, recipes, pools of workers, devices, errors."""
