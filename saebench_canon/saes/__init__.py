"""How does a checkpoint become a canonical SAE?"""
