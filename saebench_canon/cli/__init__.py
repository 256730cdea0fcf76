"""Who asks? The command line, pytest, a notebook."""
