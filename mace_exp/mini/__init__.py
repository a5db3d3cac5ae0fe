"""The embedded model: its weights, the vocabulary of its captions, and the judge of its pictures.

The recipe that trains all three is no part of the package: experiments/mini_world of the
repository.
"""
