"""What is that worth to the language model?"""
