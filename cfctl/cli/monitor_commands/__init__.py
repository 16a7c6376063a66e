"""The parts of `cfctl monitor`."""
