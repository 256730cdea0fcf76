"""Are meta-latents the latents of a smaller SAE?"""
