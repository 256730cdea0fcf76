"""What do several metrics do alike, above the kernels?"""
