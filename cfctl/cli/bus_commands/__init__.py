"""The reading commands of `cfctl bus`: one file per topic, joined in `cli/commands/bus.py`."""
