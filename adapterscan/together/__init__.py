"""Several adapters at once: what they are to each other, and what they are in sum."""
