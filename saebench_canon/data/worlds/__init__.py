"""Which worlds are there whose features are known?"""
