"""Our reading of adapters held against PEFT itself: `make oracle`. Needs torch; CPU is enough."""
