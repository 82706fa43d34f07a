"""The method as pure mathematics: arrays in, arrays out (DESIGN 2)."""
