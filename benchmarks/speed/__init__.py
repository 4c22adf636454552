"""How long a static scan takes and what memory it needs, beside sha256sum and other scanners."""
