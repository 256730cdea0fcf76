"""Does an SAE find the features of a world, whose truth is known?"""
