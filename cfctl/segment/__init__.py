"""The segment format's one Python reader: files in, checked records out. Standard library only."""
