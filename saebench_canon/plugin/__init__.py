"""What does a plugin give and get? Nouns, hooks, and the registry that collects them."""
