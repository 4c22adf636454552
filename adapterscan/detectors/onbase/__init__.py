"""Detectors that need the base model's weights."""
