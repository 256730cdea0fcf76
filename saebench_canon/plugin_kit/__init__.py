"""Does a plugin conform? Checks, templates of new plugins, the schema of suite files."""
