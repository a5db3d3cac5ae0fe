"""Whether a model, images and settings go together, what a run would make, and how long it takes.

The refusals are those before a run. Nothing is drawn or trained, and nothing is written.
"""
