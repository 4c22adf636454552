"""What a ΔW can be beside s·B·A: each a value with exact statistics and rows, never dense."""
