"""How is a file read that nobody can trust? Without running code, described without being read."""
