"""How often an honest name resembles a known one: `python -m benchmarks.names WHEEL…`."""
