"""How well detectors tell poisoned adapters from benign ones, measured on the zoo."""
