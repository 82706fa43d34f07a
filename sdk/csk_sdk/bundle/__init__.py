"""A bundle: its folder, what is in it, what it must fulfil, and who signed it."""
