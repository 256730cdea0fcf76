"""Which SAEs can a suite train? One trainer for each architecture."""
