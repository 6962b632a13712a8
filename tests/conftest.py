"""Property tests have no deadline of their own: on a shared machine it fails at random; pytest-timeout bounds them."""

from hypothesis import settings

settings.register_profile("framefeed", deadline=None)
settings.load_profile("framefeed")
