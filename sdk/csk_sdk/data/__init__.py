"""Images or signals, and labels: where tasks come from, and how they become a network's input."""
