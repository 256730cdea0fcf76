"""Which cases does a suite file mean?"""
