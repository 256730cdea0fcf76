"""Does another training seed find the same latents?"""
