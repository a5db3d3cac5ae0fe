"""The run configuration: conf/ composed, validated, and converted to dataclasses.

Nothing here imports torch, so that errors are reported quickly.
"""
