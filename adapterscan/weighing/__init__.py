"""One pass over a weight file: hash it, and measure every update in it."""
