"""Running and checking bundles on other targets than the one that csk-sdk was developed on.

python -m csk_device_runners check BUNDLE
"""

from csk_device_runners.check import Result, check_bundle

__all__ = ["Result", "check_bundle"]
