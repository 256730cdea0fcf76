"""Do decoder rows decompose into a few shared directions?"""
