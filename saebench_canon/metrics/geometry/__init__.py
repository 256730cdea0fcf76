"""How do the decoder rows of one SAE lie to one another?"""
