"""Models that answer. The only place that imports torch, transformers and peft."""
