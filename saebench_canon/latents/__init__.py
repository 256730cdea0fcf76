"""What is one latent?"""
