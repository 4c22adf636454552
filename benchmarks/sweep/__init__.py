"""What screening candidates costs, beside the least that the model itself could cost."""
