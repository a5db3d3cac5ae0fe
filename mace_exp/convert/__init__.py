"""Configurations of the published implementation, made experiment files of conf/.

`python -m mace_exp.convert --help` is the command.
"""
