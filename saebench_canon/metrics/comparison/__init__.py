"""What are the latents of one SAE in another SAE?"""
