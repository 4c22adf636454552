"""How much of a hidden payload the tests of bytes and low bits find, and how often they err."""
