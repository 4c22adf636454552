"""JSON Schemas of what adapterscan writes."""
