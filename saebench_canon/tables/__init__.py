"""How do records become a table?"""
