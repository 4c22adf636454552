"""Scan LoRA adapters before you load them."""

__version__ = "0.1.0"
