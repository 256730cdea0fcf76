"""Are a larger SAE's latents sums of a smaller one's?"""
