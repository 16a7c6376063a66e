"""The command line: parse, call the domain, choose a renderer, set the exit code."""
