"""The graphs of a bundle, and which convolutions they train."""
