"""The stages that every method shares.

A stage in `stages=` is a module of that name here or, if it is a step of a method, in the package
of that method.
"""
