"""How is a case measured once and kept?"""
