"""`csk-sdk report`: what a device has learned, and what it cost, as one HTML file without anything outside it."""

from csk_sdk.report.history import History, read_history
from csk_sdk.report.page import page

__all__ = ["History", "page", "read_history"]
