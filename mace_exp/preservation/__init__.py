"""Preservation statistics: computed once per text encoder, stored as files, used by many runs.

`python -m mace_exp.preservation --help` is the command.
"""
