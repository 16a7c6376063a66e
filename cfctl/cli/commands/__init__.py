"""The commands: one module per command or group, named after it, with its Typer app as `app`."""
