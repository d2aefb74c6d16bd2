"""How calls are checked in tests: by beartype, an int where a float is expected allowed.

Functions inside functions are left out: they are made anew, and would be prepared anew, at every
call.
"""

from beartype import BeartypeConf, beartype

_CONF = BeartypeConf(is_pep484_tower=True)


def checked(what):
    """A function or class with its calls checked."""
    return what if "<locals>" in what.__qualname__ else beartype(conf=_CONF)(what)
