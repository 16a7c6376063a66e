"""Long programmes, run by hand: each with its figures in its last line."""
