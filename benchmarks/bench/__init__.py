"""`make bench`: csk-sdk's training step beside those of other runtimes, in one interleaved run."""
