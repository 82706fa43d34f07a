"""Files and values from outside: opened, bounded and checked."""
