"""Detectors that need the values of the weights."""
