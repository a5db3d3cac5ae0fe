"""Measure what a model draws before and after an edit."""
