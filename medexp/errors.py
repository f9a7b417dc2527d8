"""What a user is meant to read. Every other exception is a defect."""


class MedexpError(Exception):
    """The run failed (exit code 1). One to three lines: what (file, key, value) and the remedy."""


class ConfigError(MedexpError):
    """Wrong usage or configuration (exit code 2): names the key's full path and the remedy."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, with the state saved (exit code 130). No Exception, so a sweep stops."""
