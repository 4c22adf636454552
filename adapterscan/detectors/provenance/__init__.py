"""Where an adapter comes from, and whether what it says of itself is so."""
