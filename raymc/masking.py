"""Secrets in URIs and command lines, replaced before anything is printed, recorded, sent or put into a report."""

from __future__ import annotations

import re
from collections.abc import Sequence

HIDDEN = "***"

DATABASES = ("postgresql", "mysql", "mssql")
"""Schemes of database servers, without their drivers."""

_SCHEME = r"(?P<scheme>[A-Za-z][\w+.-]*)://"
_URI = re.compile(_SCHEME + r"(?P<rest>\S+)")
_URI_OF_A_WORD = re.compile(_SCHEME + r"(?P<rest>.+)", re.DOTALL)
"""One word of a command line may hold spaces."""

_USER = re.compile(r"(?P<user>[^/:@\[]*):(?P<password>.*)@", re.DOTALL)
"""Up to the last @, since a password may hold what it should not: @, / and : that were never percent-encoded."""
_USER_ALONE = re.compile(r"[^/:@\[?#]+@")
_PORT = re.compile(r"\d{1,5}([/?#]|$)")
_TELLTALE = "(?:pass|pwd|secret|token|key|sig|cred|auth)"
_PARAMETER = re.compile(rf"([?&;][^=&;#\s]*{_TELLTALE}[^=&;#\s]*=)[^&;#\s]+", re.IGNORECASE)


def masked(text: str) -> str:
    """`text` with `***` for the passwords of the URIs in it, and for the values of parameters like `token` in them.

    A user's name stays, but for one that stands alone before a web server, which is a token as a rule.
    """
    return _URI.sub(_without_secrets, text)


def masked_words(words: Sequence[str]) -> list[str]:
    """`masked` for each word of a command line."""
    return [_URI_OF_A_WORD.sub(_without_secrets, word) for word in words]


def _without_secrets(uri: re.Match[str]) -> str:
    scheme, rest = uri["scheme"], uri["rest"]
    served = scheme in ("http", "https")
    found = _USER.match(rest)
    if found and not (served and _PORT.match(found["password"])):
        rest = f"{found['user']}:{HIDDEN}@{rest[found.end() :]}"
    elif served and (alone := _USER_ALONE.match(rest)):
        rest = f"{HIDDEN}@{rest[alone.end() :]}"
    return f"{scheme}://" + _PARAMETER.sub(rf"\1{HIDDEN}", rest)
