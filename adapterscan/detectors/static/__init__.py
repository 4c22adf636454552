"""Detectors that need only the files: names, headers, configs."""
