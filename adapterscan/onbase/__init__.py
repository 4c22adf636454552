"""ΔW beside the base model's W: the base's weights by name, and what W + ΔW is."""
