"""How is an answer found and worded?"""
