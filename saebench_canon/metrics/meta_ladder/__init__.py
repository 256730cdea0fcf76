"""What do SAEs of several sizes share?"""
