"""What base + adapter does that the base does not. Needs a runner (`--base … --probe …`)."""
