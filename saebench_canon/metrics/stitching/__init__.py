"""What does a larger SAE have that a smaller one lacks?"""
