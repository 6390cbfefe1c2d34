"""Takes secrets out of texts that leave the process: errors, journal rows, events."""

from __future__ import annotations

import re

HIDDEN = "[hidden]"

_SECRETS = (
    (re.compile(r"(://)[^/\s:@]+:[^/\s@]+(@)"), rf"\1{HIDDEN}\2"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {HIDDEN}"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]*)?"), HIDDEN),
    (re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"), HIDDEN),
    (
        re.compile(
            r"(?i)([\w-]*(?:password|passwd|secret|token|api[_-]?key|credential|signature)[\w-]*[\"']?\s*[=:]\s*)"
            r"(?:\"[^\"]*\"|'[^']*'|[^\s,;&\"']+)"
        ),
        rf"\1{HIDDEN}",
    ),
)
"""Credentials in URLs, authorisation headers, JSON web tokens, AWS key ids, and ``name=value`` pairs."""


def redacted(text: str) -> str:
    """``text`` without what looks like a credential.

    >>> redacted("GET http://bob:hunter2@lb/x failed: Authorization: Bearer abcdefgh12345")
    'GET http://[hidden]@lb/x failed: Authorization: Bearer [hidden]'
    >>> redacted('{"client_secret": "s3cr3t", "region": "eu"}')
    '{"client_secret": [hidden], "region": "eu"}'
    """
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text
