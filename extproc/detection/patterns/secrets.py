"""Keys, tokens and passwords: what opens something."""

from __future__ import annotations

import math
from collections import Counter

from extproc.detection import checksums
from extproc.detection.patterns.pattern import Check, Form, Pattern

KEY_WORDS = ("key", "secret", "token", "credential", "credentials", "api", "auth", "password")

_NO_SECRET = frozenset(
    [
        "none",
        "null",
        "true",
        "false",
        "undefined",
        "required",
        "optional",
        "password",
        "passwd",
        "secret",
        "changeme",
        "example",
        "redacted",
        "string",
        "str",
        "bytes",
        "your_password",
        "your_api_key",
        "xxxxxxxx",
        "********",
        "secretstr",
        "getenv",
    ]
)


def json_web_token(text: str) -> bool:
    """RFC 7519: header and payload are JSON in base64url."""
    header, payload = text.split(".")[:2]
    return checksums.base64url_json(header) and checksums.base64url_json(payload)


def entropy_bits(text: str) -> float:
    """Shannon entropy per character."""
    length = len(text)
    return -sum(count / length * math.log2(count / length) for count in Counter(text).values())


def random_looking(text: str) -> bool:
    """Letters and digits mixed with at least three bits per character: no word, no date, no placeholder."""
    mixed = any(character.isdigit() for character in text) and any(character.isalpha() for character in text)
    return mixed and entropy_bits(text) >= 3.0


def password(text: str) -> bool:
    """No placeholder, no name of a variable or function: something a person or a generator typed as a value."""
    plain = text.strip("'\"").lower()
    reference = plain.startswith(
        ("$", "${", "{", "<", "[", "%", "os.", "process.", "env.", "self.", "settings.", "config.")
    )
    return plain not in _NO_SECRET and not reference and not plain.endswith((")", "(")) and len(set(plain)) > 3


def typed(text: str) -> bool:
    """A password in a sentence: letters mixed with digits or signs, so that no word is taken for it."""
    word = text.strip(".,;:!?").replace("-", "").isalpha()
    return not word and any(character.isalpha() for character in text) and password(text)


_JWT, _RANDOM, _PASSWORD = (
    Check("json", json_web_token),
    Check("entropy", random_looking),
    Check("no_placeholder", password),
)


def _key(name: str, expression: str, *, alone: float = 0.95, check: Check | None = None) -> Pattern:
    return Pattern(name, "API_KEY", expression, alone, 0.98, KEY_WORDS, check, form=Form.TEXT)


def _long_key(name: str, head: str, whole: str) -> Pattern:
    return Pattern(name, "API_KEY", head, 0.95, 0.98, KEY_WORDS, whole=whole, form=Form.TEXT)


_PASSWORD_NAME = r"(?i)(?:password|passwd|passphrase|pwd|contrase\xc3\xb1a|passwort|kennwort|mot de passe|has\xc5\x82o)"
_KEY_NAME = r"(?i)(?:secret|api[_-]?key|access[_-]?key|secret[_-]?key|account[_-]?key|private[_-]?key|auth[_-]?token|access[_-]?token)"
_GIVEN = r"(?:\\?[\"'])? ?[:=]"
_VALUE = r"{1,2}>? ?(?:\\?[\"'])?(?P<value>[^\s\"'`<>\\]{6,256})"

PATTERNS = (
    _key("aws_access_key", r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b"),
    _key("google_api_key", r"\bAIza[0-9A-Za-z_-]{35}"),
    _key("google_oauth", r"\bGOCSPX-[0-9A-Za-z_-]{28}"),
    _long_key("google_access_token", r"\bya29\.[0-9A-Za-z_-]{8}", r"ya29\.[0-9A-Za-z_.-]{8,2000}"),
    _key("github_token", r"\bgh[pousr]_[0-9A-Za-z]{36}"),
    _long_key("github_fine_grained", r"\bgithub_pat_[0-9A-Za-z_]{8}", r"github_pat_[0-9A-Za-z_]{22,255}"),
    _long_key("gitlab_token", r"\bgl(?:pat|dt|rt|cbt|ptt|ft|soat)-[0-9A-Za-z_-]{8}", r"gl[a-z]{2,4}-[0-9A-Za-z_.-]{20,300}"),
    _long_key("slack_token", r"\bxox[abeoprs]-[0-9A-Za-z]", r"xox[abeoprs]-[0-9A-Za-z-]{10,250}"),
    _long_key("slack_app_token", r"\bxapp-\d-[0-9A-Z]", r"xapp-\d-[0-9A-Za-z-]{10,250}"),
    _long_key("slack_webhook", r"hooks\.slack\.com/", r"hooks\.slack\.com/(?:services|workflows)/[0-9A-Za-z/+_-]{20,120}"),
    _long_key("stripe_key", r"\b[rs]k_(?:live|test)_[0-9A-Za-z]{8}", r"[rs]k_(?:live|test)_[0-9A-Za-z]{16,247}"),
    _long_key("stripe_webhook", r"\bwhsec_[0-9A-Za-z]{8}", r"whsec_[0-9A-Za-z+/=]{24,100}"),
    _long_key("anthropic_key", r"\bsk-ant-[0-9A-Za-z]", r"sk-ant-[0-9A-Za-z_-]{20,250}"),
    _long_key("openai_key", r"\bsk-(?:proj-|svcacct-|admin-)?[0-9A-Za-z]{6}", r"sk-(?!ant-)(?:proj-|svcacct-|admin-)?[0-9A-Za-z_-]{20,250}"),
    _key("huggingface_token", r"\b(?:hf|api_org)_[0-9A-Za-z]{34}"),
    _key("nvidia_key", r"\bnvapi-[0-9A-Za-z_-]{60,70}"),
    _key("groq_key", r"\bgsk_[0-9A-Za-z]{40,60}\b"),
    _key("replicate_token", r"\br8_[0-9A-Za-z]{37,40}\b"),
    _key("sendgrid_key", r"\bSG\.[0-9A-Za-z_-]{22}\.[0-9A-Za-z_-]{43}"),
    _key("mailgun_key", r"\bkey-[0-9a-f]{32}\b"),
    _key("twilio_key", r"\b(?:SK|AC)[0-9a-f]{32}\b", alone=0.8),
    _key("npm_token", r"\bnpm_[0-9A-Za-z]{36}\b"),
    _long_key("pypi_token", r"\bpypi-AgEI[0-9A-Za-z_-]{8}", r"pypi-AgEI[0-9A-Za-z_-]{50,600}"),
    _key("digitalocean_token", r"\bdo[opr]_v1_[0-9a-f]{64}\b"),
    _key("databricks_token", r"\bdapi[0-9a-f]{32}(?:-\d)?\b"),
    _key("shopify_token", r"\bshp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}\b"),
    _key("telegram_token", r"\b\d{8,10}:AA[0-9A-Za-z_-]{33}"),
    _key("discord_token", r"\b[MNO][0-9A-Za-z_-]{23,25}\.[0-9A-Za-z_-]{6}\.[0-9A-Za-z_-]{27,38}"),
    _key("vault_token", r"\bhv[sbr]\.[0-9A-Za-z_-]{24,90}"),
    _long_key("azure_storage_key", r"AccountKey=[0-9A-Za-z+/]{8}", r"AccountKey=[0-9A-Za-z+/]{86}=="),
    _long_key("azure_sas", r"[?&]sig=[0-9A-Za-z%]{8}", r"[?&]sig=[0-9A-Za-z%+/]{40,120}(?:=|%3D)?"),
    Pattern("jwt", "JWT", r"\beyJ[0-9A-Za-z_-]{8}", 0.98, 1.0, KEY_WORDS, _JWT, form=Form.TEXT,
            whole=r"eyJ[0-9A-Za-z_-]{8,1000}\.eyJ[0-9A-Za-z_-]{5,2500}\.[0-9A-Za-z_-]{0,590}"),
    Pattern("private_key", "PRIVATE_KEY", r"-----BEGIN [A-Z ]{0,24}PRIVATE KEY", 0.99, 1.0, form=Form.TEXT,
            whole=r"-----BEGIN [A-Z ]{0,24}PRIVATE KEY(?: BLOCK)?-----[0-9A-Za-z+/=\s\\:,.()-]{16,3900}?-----END [A-Z ]{0,24}PRIVATE KEY(?: BLOCK)?-----"),
    Pattern("url_credentials", "URL_CREDENTIALS", r"[a-z0-9+]://[^\s/@:\"'<>`]{0,64}:", 0.95, 0.99, form=Form.TEXT,
            whole=r"[a-z0-9+]://(?P<value>[^\s/@:\"'<>`]{0,64}:[^\s/@\"'<>`]{1,256})@[0-9A-Za-z\[.-]"),
    Pattern("bearer", "API_KEY", r"(?i)\b(?:bearer|basic) [0-9A-Za-z]{4}", 0.85, 0.98, KEY_WORDS, _RANDOM, form=Form.TEXT,
            whole=r"(?i)(?:bearer|basic) (?P<value>[0-9A-Za-z_.~+/-]{16,1500}={0,2})"),
    Pattern("assigned_password", "PASSWORD", _PASSWORD_NAME + _GIVEN, 0.85, 0.95, form=Form.TEXT, check=_PASSWORD,
            whole=_PASSWORD_NAME + _GIVEN + _VALUE),
    Pattern("assigned_key", "API_KEY", _KEY_NAME + _GIVEN, 0.85, 0.95, form=Form.TEXT, check=Check("no_word", typed),
            whole=_KEY_NAME + _GIVEN + _VALUE),
    Pattern("said_password", "PASSWORD", r"(?i)\b(?:password|passcode|passwort|contrase\xc3\xb1a|mot de passe) (?:is|ist|es|est)", 0.7, 0.8,
            form=Form.TEXT, check=Check("no_word", typed),
            whole=r"(?i)(?:password|passcode|passwort|contrase\xc3\xb1a|mot de passe) (?:is|ist|es|est):? [\"']?(?P<value>[^\s\"'`<>\\]{5,128})(?<![.,;:!?])"),
)  # fmt: skip
