"""Weights in files nobody can trust: read without running code, described without being read."""
