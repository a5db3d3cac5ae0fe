"""The embedded model: its weights, the vocabulary of its captions, and the judge of its pictures.

The code that trains them is not part of the package: experiments/mini_world of the repository.
"""
