"""What an experiment is made of, as dataclasses: models, schedules, protocols, and recipes that hold them all.

Nothing here imports torch, so that the command line can describe every option at once.
"""
