"""Whether a GPU kernel may be used there: it is tried once a process and compared with its plain form."""

import functools
import logging

logger = logging.getLogger(__name__)


def verified_once(kernel):
    """Decorate check(device, …) -> bool: called once for each device, False with a warning where it fails.

    Args:
        kernel: its name, for the warning.
    """

    def decorate(check):
        @functools.cache
        @functools.wraps(check)
        def is_right(device, *arguments):
            try:
                if check(device, *arguments):
                    return True
                reason = "its numbers are not those of the plain form"
            except Exception as error:  # triton has a kind for each stage of a compilation
                reason = " ".join(str(error).split())[:200]
            logger.warning(f"the {kernel} kernel cannot be used on {device}: {reason}")
            return False

        return is_right

    return decorate
