"""A zoo of adapters with known behaviour: recipes as data, one trainer, a gate, an index."""
