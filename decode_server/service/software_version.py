"""The version of the framefeed that runs here: what a server says of itself. It says nothing of the bytes of clips."""

from importlib.metadata import version

SOFTWARE_VERSION = version("framefeed")
"""Read once: the files that say it may be gone or unreadable later."""
