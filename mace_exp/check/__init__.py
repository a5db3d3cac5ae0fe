"""Check that model, images and settings fit together; list what a run would compute, with times.

The checks are those before a run. Nothing is drawn or trained, and nothing is written.
"""
