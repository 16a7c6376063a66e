"""The reading commands of `cfctl profile`: one file per topic, joined in `cli/commands/profile.py`."""
