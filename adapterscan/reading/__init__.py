"""Read the files of an artifact into adapters, documents and facts; what fails is kept as such."""

from adapterscan.reading.contents import Contents, Outline, WeighedAdapter
from adapterscan.reading.files import read, read_files

__all__ = ["Contents", "Outline", "WeighedAdapter", "read", "read_files"]
