"""How much less error does an SAE make with the latents that it lacks?"""
