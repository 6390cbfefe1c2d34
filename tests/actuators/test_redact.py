"""No secret leaves in an error."""

from __future__ import annotations

import pytest

from actuators.redact import redacted

SECRET = "s3cr3tS3cr3t"


@pytest.mark.parametrize(
    "text",
    [
        f"GET https://bob:{SECRET}@lb.example/x failed",
        f"Authorization: Bearer {SECRET}",
        f"authorization=basic {SECRET}",
        f'{{"client_secret": "{SECRET}"}}',
        f"password={SECRET}; host=db",
        f"X-Amz-Security-Token: {SECRET}",
        f"https://store/blob?sig_signature={SECRET}&x=1",
        f"api-key: {SECRET}",
        f"token eyJ{SECRET}.{SECRET}.{SECRET}",
    ],
)
def test_what_looks_like_a_credential_is_hidden(text: str) -> None:
    assert SECRET not in redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        "Envoy has no cluster 'demo_v3'; the routes stay as they are",
        "expected the routes 3.1:deadbeef, found 3.2:cafebabe",
        "http://127.0.0.1:9901/stats answered 503",
    ],
)
def test_our_own_sentences_stay_as_they_are(text: str) -> None:
    assert redacted(text) == text
