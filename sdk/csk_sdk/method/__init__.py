"""The method as pure mathematics: arrays in, arrays out (docs/method.md)."""
