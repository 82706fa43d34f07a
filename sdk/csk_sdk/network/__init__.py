"""A bundle's network, with what one generation knows: features, predictions, evaluation, export."""
