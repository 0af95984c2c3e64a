"""What counts as a workload's certificate or a token's claims, for every odd thing they can say."""

import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.config.identities import Identities, Issuer, Workload
from extproc.config.tier import Tier
from extproc.policies.credentials import CERTIFICATE_HEADER, KnownCallers, spiffe_id_of

ID = "spiffe://cluster.local/ns/a/sa/b"
HASH = "Hash=" + "0" * 64


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (f"{HASH};URI={ID}", ID),
        (f'By=spiffe://x/gateway;{HASH};Subject="CN=a,O=b;URI=spiffe://x/y";URI={ID};DNS=a.b', ID),
        (f'{HASH};Subject="O=\\"quoted\\";URI=x";URI={ID}', ID),
        (f"{HASH};URI={ID};URI={ID}", None),
        (f"{HASH};URI={ID},{HASH};URI={ID}", None),
        (f"{HASH};URI={ID},", None),
        (f'{HASH};URI="{ID}"', None),
        (f'{HASH};Subject="CN=a;URI={ID}', None),
        (f"{HASH};URI=spiffe://cluster.local", None),
        (f"{HASH};URI={ID}/../admin%2f", None),
        (f"{HASH};URI={ID}/" + "x" * 600, None),
        (f"URI={ID};" + "X=y;" * 10_000, None),
        (HASH, None),
        (ID, None),
        ("", None),
    ],
)
def test_only_one_certificate_with_one_name_counts(header: str, expected: str | None) -> None:
    assert spiffe_id_of(header) == expected


@given(st.text(alphabet='abURI=;,"\\/:spife', max_size=200))
def test_nothing_makes_it_fail(header: str) -> None:
    found = spiffe_id_of(header)
    assert found is None or found in header


@given(st.text(alphabet=st.characters(codec="latin-1"), max_size=60))
def test_no_quoted_value_adds_a_name(value: str) -> None:
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    assert spiffe_id_of(f'Subject="{quoted}";URI={ID}') == ID


def _callers(**workloads: str) -> KnownCallers:
    known = {name: Workload(spiffe_id=pattern, team=name) for name, pattern in workloads.items()}
    return KnownCallers(Identities(workloads=known))


def _team(callers: KnownCallers, spiffe_id: str) -> str | None:
    principal = callers.workload({CERTIFICATE_HEADER: f"{HASH};URI={spiffe_id}"})
    return None if principal is None else principal.team


def test_the_first_pattern_that_fits_counts_and_a_star_is_one_segment() -> None:
    callers = _callers(b=ID, any="spiffe://cluster.local/ns/a/sa/*", dots="spiffe://cluster.local/ns/a.c/sa/x")
    assert _team(callers, ID) == "b"
    assert _team(callers, ID + "2") == "any"
    assert _team(callers, ID + "/more") is None
    assert _team(callers, "spiffe://cluster.local/ns/a/sa") is None
    assert _team(callers, "spiffe://cluster-local/ns/a/sa/b") is None
    assert _team(callers, "spiffe://cluster.local/ns/abc/sa/x") is None


def _issuer(tmp_path: pathlib.Path, **more: str) -> KnownCallers:
    (tmp_path / "jwks.json").touch()
    issuer = Issuer.model_validate(
        {"issuer": "https://i", "audiences": ("a",), "jwks_file": tmp_path / "jwks.json", "team": "t", **more}
    )
    return KnownCallers(Identities(issuers={"i": issuer}))


def test_claims_that_are_not_asked_for_mean_nothing(tmp_path: pathlib.Path) -> None:
    said = {"i": {"sub": "ada", "team": "admins", "tier": "enterprise", "": "admins", "None": "x"}}
    principal = _issuer(tmp_path).bearer(said)
    assert principal is not None
    assert (principal.id, principal.team, principal.tier) == ("token:i:ada", "t", Tier.FREE)


def test_claims_of_an_issuer_that_is_not_configured_are_nobodys(tmp_path: pathlib.Path) -> None:
    assert _issuer(tmp_path).bearer({"other": {"sub": "ada"}}) is None


@pytest.mark.parametrize("subject", ["", "a b", "a\nb", "é", "x" * 256])
def test_a_subject_that_is_no_name_is_nobodys(tmp_path: pathlib.Path, subject: str) -> None:
    assert _issuer(tmp_path).bearer({"i": {"sub": subject}}) is None


def test_only_what_looks_like_a_token_is_not_looked_for_among_the_keys(tmp_path: pathlib.Path) -> None:
    callers = _issuer(tmp_path)
    assert callers.looks_like_a_token("eyJhbGciOiJub25lIn0.e30.")
    assert not callers.looks_like_a_token("sk-xp-eyJ.a.b")
    assert not _callers(b=ID).looks_like_a_token("eyJhbGciOiJub25lIn0.e30.")
