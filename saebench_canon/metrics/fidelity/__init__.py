"""How well does an SAE reconstruct, and at what price?"""
