"""How does a table leave the program?"""
