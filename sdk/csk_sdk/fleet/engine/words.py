"""What server, devices and operator call what they exchange."""

CONTRIBUTE, APPLY = "contribute", "apply"
"""The tasks of a round."""
FILE, REFUSED, APPLIED = "file", "refused", "applied"
"""What an answer has: a file's bytes, or a sentence that says why not; what became of one."""
REPORT = "csk-fleet-round.json"
"""What a round came to, in its job's folder."""
