"""Learning a task: from its first check to the commit."""
