"""Recall and false alarms on corpora of hostile and benign files, beside other scanners."""
