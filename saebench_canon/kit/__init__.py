"""The plugin kit: conformance checks, templates of new plugins, the schema of suite files."""
