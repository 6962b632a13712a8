"""Whether a machine and a running system are fit for framefeed: facts are collected, checks over them are pure."""
