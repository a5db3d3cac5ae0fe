"""Preservation caches as files of their own: built once for a text encoder, used by many runs.

`python -m mace_exp.preservation --help` is the command.
"""
