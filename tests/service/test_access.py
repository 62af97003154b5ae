"""Who manages the access of a party, what a secret leaves in the journal, and what ends with what."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import timedelta
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflex.domain.errors import CoflexError, Conflict, Forbidden, NotFound, Refused
from coflex.register.access import (
    HIDDEN,
    RECORDS,
    Client,
    ClientScope,
    Grants,
    Issuer,
    RevokedToken,
    User,
    Webhook,
    WebhookProgress,
    login_digest,
    persons,
    public_address,
    shown,
    url_fault,
)
from coflex.register.parties import PartyEntry, PartyStatus
from coflex.service import chain
from coflex.service.verbs import access, issuers, webhooks
from support.access import AT, Bench

HASH = sha256(b"secret").hexdigest()
OTHER = sha256(b"another").hexdigest()
# Of "correct horse battery staple" with a salt of 16 bytes, by the reference program's text form.
PASSWORD = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHRzb21lc2FsdA$wWKIMhR9lyDFvRz9YTZweHKfbftvj+qf+YFY4NeBbtA"
SESSION = sha256(b"session").hexdigest()


def a_client(bench: Bench, party: str = "sp-1", scopes: tuple[str, ...] = ("read", "write"), **more: Any) -> str:
    form = {"name": "Bidding", "scopes": scopes, "secret_hash": HASH} | more
    return str(bench.take("client.create", form, party=party, actor=f"client-{party}")["id"])


def a_user(bench: Bench, name: str = "ana@example.org", party: str = "sp-1") -> str:
    form = {"login": login_digest("demo", name), "password": PASSWORD, "scopes": ["read", "write"]}
    return str(bench.take("user.create", form, party=party, actor=f"client-{party}")["id"])


def a_webhook(bench: Bench, party: str = "sp-1") -> str:
    form = {"url": "https://example.org/in"}
    return str(bench.take("webhook.create", form, party=party, actor=f"client-{party}")["id"])


def a_grant(bench: Bench, user: str, client: str = "client-mo", session: str = SESSION) -> str:
    form = {"client": client, "scopes": ["read"], "session": session, "signed_in": "2026-01-01T00:00:00Z"}
    return str(bench.take("grant.open", form, user, "sp-1", actor=user)["id"])


# ---------------------------------------------------------------- who may


@pytest.mark.spec("PLAT-01")
def test_a_client_with_the_scope_manage_makes_others_and_one_without_does_not() -> None:
    bench = Bench()
    made = a_client(bench)
    with pytest.raises(Forbidden, match="'manage'"):
        bench.take("client.create", {"name": "x", "scopes": ["read"], "secret_hash": HASH}, actor=made)
    assert bench.state.get(Client, made).scopes == (ClientScope.READ, ClientScope.WRITE)


@pytest.mark.spec("PLAT-01")
@pytest.mark.parametrize("verb", ["client.change", "client.rotate", "client.revoke", "client.create", "webhook.create"])
def test_nobody_manages_the_access_of_another_party(verb: str) -> None:
    bench = Bench()
    forms = {
        "client.change": {"name": "x", "scopes": ["read"]},
        "client.rotate": {"secret_hash": OTHER},
        "client.create": {"name": "x", "scopes": ["read"], "secret_hash": HASH},
        "webhook.create": {"url": "https://example.org/"},
    }
    with pytest.raises(Forbidden):
        bench.take(verb, forms.get(verb), "client-sp-1", party="sp-1", by="sp-2", actor="client-sp-2")


def test_another_partys_client_is_answered_exactly_like_none() -> None:
    bench = Bench()

    def told(subject: str) -> str:
        with pytest.raises(NotFound) as fault:
            bench.take("client.revoke", None, subject, party="sp-2", actor="client-sp-2")
        return str(fault.value).replace(subject, "ID")

    assert told("client-sp-1") == told("client-none")


@pytest.mark.spec("PLAT-07")
def test_the_market_operator_ends_access_on_behalf_and_the_journal_says_so() -> None:
    bench = Bench()
    user, hook = a_user(bench), a_webhook(bench)
    for verb, form, subject in (
        ("token.revoke", None, user),
        ("user.lock", None, user),
        ("user.remove", None, user),
        ("webhook.disable", {"reason": "It floods the receiver."}, hook),
        ("webhook.remove", None, hook),
        ("client.revoke", None, "client-sp-1"),
    ):
        bench.take(verb, form, subject, party="sp-1", by="mo", actor="client-mo")
        command = bench.journal.entries()[-1].command
        assert (command.party, command.by, command.actor) == ("sp-1", "mo", "client-mo")
    assert bench.state.get(Client, "client-sp-1").revoked == AT
    with pytest.raises(Forbidden, match="Only the market operator"):
        bench.take("token.revoke", None, "client-sp-1", party="sp-1", by="dso", actor="client-dso")


ACCESS_MADE = {
    "client.create": {"name": "x", "scopes": ["read"], "secret_hash": HASH},
    "client.change": {"name": "x", "scopes": ["read"], "redirects": ["https://operator.example/"]},
    "client.rotate": {"secret_hash": OTHER},
    "client.first": {"name": "x", "secret_hash": HASH},
    "user.create": {"login": login_digest("demo", "new"), "password": PASSWORD, "scopes": ["read"]},
    "user.change": {"scopes": ["manage"]},
    "user.change_password": {"password": PASSWORD},
    "user.unlock": None,
    "webhook.create": {"url": "https://operator.example/"},
    "webhook.change": {"url": "https://operator.example/"},
    "webhook.rotate": None,
    "webhook.enable": None,
}


@pytest.mark.spec("PLAT-07")
@pytest.mark.parametrize("verb", ACCESS_MADE)
def test_the_market_operator_cannot_become_a_party_by_acting_on_its_behalf(verb: str) -> None:
    bench = Bench()
    subjects = {"client": "client-sp-1", "user": a_user(bench), "webhook": a_webhook(bench)}
    before = list(bench.state.kinds())
    with pytest.raises(Forbidden):
        bench.take(verb, ACCESS_MADE[verb], subjects[verb.split(".")[0]], party="sp-1", by="mo", actor="client-mo")
    assert list(bench.state.kinds()) == before


def test_every_verb_of_access_is_known_to_end_something_or_not_to_be_done_on_behalf() -> None:
    """A verb that is added must be looked at: whoever may do it on behalf of a party must not become that party."""
    ends = {"client.revoke", "user.lock", "user.remove", "token.revoke", "webhook.remove", "webhook.disable"}
    # By a user or its application alone, by the platform, and of the market operator's own right.
    otherwise = {"user.sign_out", "grant.open", "grant.refresh", "grant.end", "webhook.delivered"}
    otherwise |= {"client.limit", "issuer.set", "issuer.remove", "issuer.accept", "issuer.decline"}
    assert {verb.name for room in (access, webhooks, issuers) for verb in room.VERBS} == ends | otherwise | set(
        ACCESS_MADE
    )


def test_the_first_client_is_made_by_the_platform_once() -> None:
    bench = Bench()
    form = {"name": "First", "secret_hash": HASH}
    with pytest.raises(Forbidden):
        bench.take("client.first", form, party="sp-1", actor="client-sp-1")
    with pytest.raises(Conflict, match="a client already"):
        bench.take("client.first", form, party="sp-1")
    with pytest.raises(NotFound):
        bench.take("client.first", form, party="nobody")


def test_only_the_market_operator_limits_a_client() -> None:
    bench = Bench()
    form = {"requests_per_s": 20, "requests_burst": 40, "items_per_s": 100, "items_burst": 100}
    with pytest.raises(Forbidden):
        bench.take("client.limit", form, "client-sp-1", actor="client-sp-1")
    bench.take("client.limit", form, "client-sp-1", party="mo", actor="client-mo")
    assert bench.state.get(Client, "client-sp-1").rates.requests_per_s == 20
    with pytest.raises(Refused):
        bench.take("client.limit", form | {"requests_per_s": 0}, "client-sp-1", party="mo", actor="client-mo")


# ---------------------------------------------------------------- clients and users


@pytest.mark.spec("PLAT-01")
def test_a_rotated_secret_is_taken_until_its_overlap_ends() -> None:
    bench = Bench()
    made = a_client(bench)
    bench.take("client.rotate", {"secret_hash": OTHER, "overlap_s": 3600}, made, actor="client-sp-1")
    client = bench.state.get(Client, made)
    assert (client.secret_hash, client.previous_hash) == (OTHER, HASH)
    assert client.previous_until == AT + timedelta(hours=1)


def test_a_revoked_client_is_not_rotated_and_manages_nothing() -> None:
    bench = Bench()
    bench.take("client.revoke", None, "client-sp-1", actor="client-sp-1")
    with pytest.raises(Forbidden):
        bench.take("client.create", {"name": "x", "scopes": ["read"], "secret_hash": HASH}, actor="client-sp-1")
    with pytest.raises(Conflict):
        bench.take("client.rotate", {"secret_hash": OTHER}, "client-sp-1")


def test_every_fault_of_a_client_is_told_at_once() -> None:
    bench = Bench()
    form = {
        "name": " ",
        "scopes": [],
        "secret_hash": "plain text",
        "expires": "2025-01-01T00:00:00Z",
        "redirects": ["http://shop.example/back", "https://shop.example/#part"],
    }
    with pytest.raises(Refused) as fault:
        bench.take("client.create", form, actor="client-sp-1")
    places = [one.place for one in fault.value.findings]
    assert places == ["expires", "name", "redirects[0]", "redirects[1]", "scopes", "secret_hash"]


def test_a_client_without_a_secret_must_say_where_users_return_and_cannot_manage() -> None:
    bench = Bench()
    form: dict[str, Any] = {"name": "App", "scopes": ["read", "manage"], "secret_hash": ""}
    with pytest.raises(Refused) as fault:
        bench.take("client.create", form, actor="client-sp-1")
    assert [one.place for one in fault.value.findings] == ["redirects"]
    with pytest.raises(Refused) as fault:
        bench.take("client.create", form | {"redirects": ["https://app.example/"]}, actor="client-sp-1")
    assert [one.place for one in fault.value.findings] == ["scopes"]


def test_a_sign_in_name_is_taken_once_in_a_tenant_whoever_asks() -> None:
    bench = Bench()
    a_user(bench, "Ana@Example.org ")
    with pytest.raises(Conflict, match="taken"):
        a_user(bench, "ana@example.org", "sp-2")


@pytest.mark.spec("PLAT-01")
def test_locking_or_a_new_password_ends_every_token_and_grant_of_the_user() -> None:
    for verb, form in (("user.lock", None), ("user.change_password", {"password": PASSWORD})):
        bench = Bench()
        user = a_user(bench)
        a_grant(bench, user)
        bench.take(verb, form, user, actor="client-sp-1")
        assert bench.state.find(Grants, user) is None
        assert bench.state.get(User, user).tokens == 1
    bench.take("user.lock", None, user)
    with pytest.raises(Forbidden):
        a_grant(bench, user)
    bench.take("user.unlock", None, user)
    a_grant(bench, user)


def test_a_user_changes_its_own_password_and_nobody_elses() -> None:
    bench = Bench()
    ana, bob = a_user(bench), a_user(bench, "bob@example.org")
    bench.take("user.change_password", {"password": PASSWORD}, ana, actor=ana)
    with pytest.raises(Forbidden):
        bench.take("user.change_password", {"password": PASSWORD}, bob, actor=ana)
    with pytest.raises(Refused):
        bench.take("user.change_password", {"password": "correct horse battery staple"}, ana, actor=ana)


def test_a_removed_user_is_gone_with_its_grants_and_its_name_is_free() -> None:
    bench = Bench()
    user = a_user(bench)
    a_grant(bench, user)
    bench.take("user.remove", None, user, actor="client-sp-1")
    assert bench.state.find(User, user) is None
    assert bench.state.find(Grants, user) is None
    a_user(bench)


@pytest.mark.spec("PLAT-01")
def test_neither_name_nor_secret_is_anywhere_in_journal_reply_or_note() -> None:
    bench = Bench()
    user = a_user(bench, "ana.maria@example.org")
    a_client(bench)
    a_grant(bench, user)
    for entry in bench.journal.entries():
        kept = b"\n".join([entry.command.body, entry.reply, *(c.body or b"" for c in entry.changes)])
        kept += b"\n".join(note.body for note in entry.notes)
        assert b"ana.maria" not in kept.lower()
        assert b"correct horse" not in kept
        told = entry.reply + b"\n".join(note.body for note in entry.notes)
        assert not any(f'"{name}"'.encode() in told for name in HIDDEN)
        assert HASH.encode() not in told
        assert PASSWORD.encode() not in told


def test_what_is_hidden_is_in_no_answer_of_any_record_of_this_room() -> None:
    assert {one.name for kind in RECORDS.values() for one in fields(kind)} >= HIDDEN  # type: ignore[arg-type]
    bench = Bench()
    answer = shown(bench.state.get(Client, "client-sp-1"))
    assert set(answer) == {one.name for one in fields(Client)} - HIDDEN


# ---------------------------------------------------------------- grants and tokens


@pytest.mark.spec("PLAT-01")
def test_a_refresh_token_that_is_shown_twice_ends_its_grant_and_the_party_is_told() -> None:
    bench = Bench()
    user = a_user(bench)
    grant = a_grant(bench, user)
    first = bench.take("grant.refresh", {"grant": grant, "generation": 1}, user, actor="client-mo")
    assert first == {"live": True, "generation": 2}
    again = bench.take("grant.refresh", {"grant": grant, "generation": 1}, user, actor="client-mo")
    assert again == {"live": False, "generation": 0}
    assert bench.journal.entries()[-1].notes[0].audience == ("sp-1",)
    with pytest.raises(NotFound):
        bench.take("grant.refresh", {"grant": grant, "generation": 2}, user, actor="client-mo")


def test_a_grant_is_refreshed_by_its_own_client_until_it_expires() -> None:
    bench = Bench()
    user = a_user(bench)
    grant = a_grant(bench, user)
    with pytest.raises(NotFound):
        bench.take("grant.refresh", {"grant": grant, "generation": 1}, user, actor="client-sp-2")
    bench.clock.at += timedelta(days=30)
    with pytest.raises(NotFound):
        bench.take("grant.refresh", {"grant": grant, "generation": 1}, user, actor="client-mo")


@given(st.lists(st.integers(1, 4), max_size=12))
def test_whatever_is_shown_a_grant_goes_on_only_while_each_generation_comes_once_and_in_order(shown: list[int]) -> None:
    bench = Bench()
    user = a_user(bench)
    grant = a_grant(bench, user)
    expected, live = 1, True
    for generation in shown:
        try:
            told = bench.take("grant.refresh", {"grant": grant, "generation": generation}, user, actor="client-mo")
        except NotFound:
            assert not live
            continue
        assert live
        live = generation == expected
        expected += 1
        assert told["live"] is live


def test_signing_out_ends_the_grants_of_that_sign_in_alone_and_old_revocations_are_swept() -> None:
    bench = Bench()
    user = a_user(bench)
    other = sha256(b"other").hexdigest()
    a_grant(bench, user, session=other)
    a_grant(bench, user)
    form = {"session": SESSION, "expires": "2026-01-01T12:00:00Z"}
    bench.take("user.sign_out", form, user, actor=user)
    assert [one.session for one in bench.state.get(Grants, user).grants] == [other]
    assert bench.state.find(RevokedToken, SESSION) is not None
    bench.clock.at += timedelta(hours=13)
    bench.take("user.sign_out", {"session": other, "expires": "2026-01-02T01:00:00Z"}, user, actor=user)
    assert [one.id for one in bench.state.all(RevokedToken)] == [other]
    assert bench.state.find(Grants, user) is None


def test_all_tokens_of_a_holder_are_revoked_by_it_or_its_manager_and_by_nobody_else() -> None:
    bench = Bench()
    made = a_client(bench)
    bench.take("token.revoke", None, made, actor=made)
    bench.take("token.revoke", None, made, actor="client-sp-1")
    assert bench.state.get(Client, made).tokens == 2
    with pytest.raises(NotFound):
        bench.take("token.revoke", None, made, party="sp-2", actor="client-sp-2")
    with pytest.raises(Refused):
        bench.take("token.revoke", {"token": "x"}, made, actor=made)


TOKEN = "b" * 64


@pytest.mark.spec("PLAT-01")
@pytest.mark.parametrize(
    ("expires", "code"),
    [
        ("2020-01-01T00:00:00Z", "past"),
        ("2026-01-01T00:00:00Z", "past"),
        ("2026-01-01T12:00:01Z", "out_of_range"),
        ("9999-12-31T23:59:59Z", "out_of_range"),
        ("2026-01-01T01:00:00", "no_zone"),
        (None, "missing"),
    ],
)
def test_a_token_is_revoked_until_an_end_that_a_token_may_have(expires: str | None, code: str) -> None:
    bench = Bench()
    for _ in range(2):
        with pytest.raises(Refused) as fault:
            bench.take("token.revoke", {"token": TOKEN, "expires": expires}, "client-sp-1", actor="client-sp-1")
        assert [one.code for one in fault.value.findings] == [code]
    assert bench.state.count(RevokedToken) == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 13)), max_size=15))
def test_no_entry_writes_a_record_twice_whatever_is_revoked_again_and_when(steps: list[tuple[int, int]]) -> None:
    """The store refuses such an entry and with it all that follow, so one client would stop everybody."""
    bench = Bench()
    for token, hours in steps:
        expires = bench.clock.at + timedelta(hours=min(hours, 12))
        form = {"token": str(token) * 64, "expires": expires.isoformat()}
        try:
            bench.take("token.revoke", form, "client-sp-1", actor="client-sp-1")
        except Refused:
            assert hours == 0
        bench.clock.at += timedelta(hours=hours)
        written = [(one.kind, one.id) for one in bench.journal.entries(limit=10**6)[-1].changes]
        assert len(set(written)) == len(written)


def test_an_expired_revocation_of_the_same_sign_in_is_replaced_and_not_ended_too() -> None:
    bench = Bench()
    user = a_user(bench)
    for hours in (1, 3):
        expires = AT + timedelta(hours=hours)
        bench.take("user.sign_out", {"session": SESSION, "expires": expires.isoformat()}, user, actor=user)
        bench.clock.at += timedelta(hours=2)
    assert [one.kind for one in bench.journal.entries()[-1].changes] == ["revoked_token"]
    assert bench.state.get(RevokedToken, SESSION).expires == AT + timedelta(hours=3)


def test_a_party_revokes_a_bounded_number_of_single_tokens_and_all_at_once_always(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("coflex.service.verbs.access.MOST_REVOKED", 3)
    bench = Bench()

    def revoke(digit: str, party: str = "sp-1") -> None:
        form = {"token": digit * 64, "expires": (bench.clock.at + timedelta(hours=1)).isoformat()}
        bench.take("token.revoke", form, f"client-{party}", party=party, actor=f"client-{party}")

    for digit in "123":
        revoke(digit)
    with pytest.raises(Conflict, match="name none"):
        revoke("4")
    revoke("4", "sp-2")
    bench.take("token.revoke", None, "client-sp-1", actor="client-sp-1")
    bench.clock.at += timedelta(hours=1)
    revoke("4")
    assert [one.id for one in bench.state.all(RevokedToken)] == ["4" * 64]


def test_a_user_has_a_bounded_number_of_grants_and_the_newest_stay() -> None:
    bench = Bench()
    user = a_user(bench)
    made = [a_grant(bench, user) for _ in range(60)]
    assert [one.id for one in bench.state.get(Grants, user).grants] == made[10:]


# ---------------------------------------------------------------- webhooks and issuers


def test_a_webhook_begins_with_what_comes_after_it_and_is_disabled_and_enabled() -> None:
    bench = Bench()
    made = bench.take("webhook.create", {"url": "https://example.org/in", "kinds": ["unit.*"]}, actor="client-sp-1")
    assert bench.state.get(WebhookProgress, made["id"]).number == bench.sequencer.number
    bench.take("webhook.disable", {"reason": "It failed."}, made["id"])
    assert bench.state.get(Webhook, made["id"]).enabled is False
    bench.take("webhook.enable", None, made["id"], actor="client-sp-1")
    with pytest.raises(Conflict):
        bench.take("webhook.enable", None, made["id"], actor="client-sp-1")
    bench.take("webhook.remove", None, made["id"], actor="client-sp-1")
    assert bench.state.count(WebhookProgress) == 0


def test_progress_is_written_by_the_platform_alone_and_passes_over_what_was_removed() -> None:
    bench = Bench()
    made = bench.take("webhook.create", {"url": "https://example.org/in"}, actor="client-sp-1")
    form = {"webhooks": [{"webhook": one, "number": 9, "position": 1} for one in (made["id"], "webhook-gone")]}
    with pytest.raises(Forbidden):
        bench.take("webhook.delivered", form, actor="client-sp-1")
    assert bench.take("webhook.delivered", form, party="", actor="engine") == {"webhooks": 1}
    assert bench.state.get(WebhookProgress, made["id"]).position == 1


@pytest.mark.spec("PLAT-01")
def test_progress_told_twice_in_one_entry_counts_as_far_as_it_goes() -> None:
    bench = Bench()
    first, other = a_webhook(bench), a_webhook(bench)
    told = [(first, 9, 1), (other, 4, 0), (first, 9, 3), (first, 8, 7)]
    form = {"webhooks": [{"webhook": id, "number": number, "position": position} for id, number, position in told]}
    assert bench.take("webhook.delivered", form, party="", actor="engine") == {"webhooks": 2}
    kept = {one.id: (one.number, one.position) for one in bench.state.all(WebhookProgress)}
    assert kept == {first: (9, 3), other: (4, 0)}


@pytest.mark.parametrize(
    ("kinds", "wanted"),
    [(("*",), True), (("unit.*",), True), (("unit.registered",), True), (("unit",), False), (("units.*",), False)],
)
def test_a_webhook_wants_the_kinds_it_names(kinds: tuple[str, ...], wanted: bool) -> None:
    webhook = Webhook("w", "sp-1", "https://example.org/", kinds, AT)
    assert webhook.wants("unit.registered") is wanted


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "https://user:pass@example.org/",
        "https://example.org/#x",
        "https://127.0.0.1/",
        "https://localhost/",
        "https://10.1.2.3/",
        "https://172.16.0.1/",
        "https://192.168.1.1/",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/",
        "https://[fd00::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://[64:ff9b::a00:1]/",
        "https://2130706433/",
        "https://127.1/",
        "https://0.0.0.0/",
        "ftp://example.org/",
        "https:///path",
        "https://exa mple.org/",
        "https://[::1/",
        "https://example.org/" + "a" * 2000,
    ],
)
def test_addresses_that_lead_inside_or_nowhere_are_refused(url: str) -> None:
    assert url_fault(url)


def test_where_private_networks_are_called_only_this_machine_is_without_tls() -> None:
    assert url_fault("http://127.0.0.1:8000/in", private=True) == ""
    assert url_fault("https://10.0.0.1/in", private=True) == ""
    assert url_fault("http://10.0.0.1/in", private=True)
    assert url_fault("https://example.org:8443/in?token=1") == ""


@pytest.mark.parametrize("url", ["http://example.org/", "https://user:pass@example.org/", "ftp://example.org/"])
def test_a_webhook_that_no_server_would_call_is_refused(url: str) -> None:
    bench = Bench()
    with pytest.raises(Refused) as fault:
        bench.take("webhook.create", {"url": url}, actor="client-sp-1")
    assert [one.place for one in fault.value.findings] == ["url"]


@pytest.mark.spec("PLAT-01")
@pytest.mark.parametrize("status", [PartyStatus.REQUESTED, PartyStatus.SUSPENDED, PartyStatus.REJECTED])
def test_only_a_party_that_takes_part_has_the_platform_call_an_address(status: PartyStatus) -> None:
    bench = Bench()
    on, off = a_webhook(bench), a_webhook(bench)
    bench.take("webhook.disable", {"reason": "for the test"}, off)
    bench.put(replace(bench.state.get(PartyEntry, "sp-1"), status=status))
    form = {"url": "https://example.org/in"}
    for verb, subject, body in (
        ("webhook.create", "", form), ("webhook.change", on, form), ("webhook.enable", off, None),
    ):  # fmt: skip
        with pytest.raises(Forbidden, match="approved"):
            bench.take(verb, body, subject, actor="client-sp-1")
    bench.take("webhook.disable", {"reason": "not wanted"}, on, actor="client-sp-1")
    bench.take("webhook.remove", None, on, actor="client-sp-1")


@pytest.mark.parametrize(
    ("address", "public"),
    [("8.8.8.8", True), ("2001:4860:4860::8888", True), ("100.64.0.1", False), ("224.0.0.1", False),
     ("fe80::1", False), ("2002:7f00:1::", False)],
)  # fmt: skip
def test_public_addresses_are_told_from_the_registry_of_special_ones(address: str, public: bool) -> None:
    assert public_address(address) is public


def test_an_outside_issuer_is_entered_by_the_market_operator_for_parties_that_there_are() -> None:
    bench = Bench()
    form = {
        "url": "https://login.example",
        "audience": "coflex",
        "claim": "email",
        "names": "user",
        "parties": ["sp-1"],
    }
    with pytest.raises(Forbidden):
        bench.take("issuer.set", form, "corporate", actor="client-sp-1")
    bench.take("issuer.set", form, "corporate", party="mo", actor="client-mo")
    with pytest.raises(Refused) as fault:
        bench.take("issuer.set", form | {"parties": ["nobody"]}, "another", party="mo", actor="client-mo")
    assert [one.place for one in fault.value.findings] == ["parties[0]", "url"]
    bench.take("issuer.remove", None, "corporate", party="mo", actor="client-mo")


def test_an_issuer_speaks_for_a_party_once_the_party_itself_accepted_it_as_it_is() -> None:
    bench = Bench()
    form = {"url": "https://login.example", "audience": "coflex", "claim": "party", "names": "party"}
    form |= {"parties": ["sp-1", "mo"]}
    shown = {"url": form["url"], "audience": form["audience"]}

    def speaks() -> list[str]:
        issuer = bench.state.get(Issuer, "corporate")
        return [party for party in ("sp-1", "mo", "dso") if issuer.speaks_for(party)]

    bench.take("issuer.set", form, "corporate", party="mo", actor="client-mo")
    assert speaks() == ["mo"]
    with pytest.raises(Forbidden):
        bench.take("issuer.accept", shown, "corporate", party="sp-1", by="mo", actor="client-mo")
    with pytest.raises(Conflict):
        bench.take("issuer.accept", shown | {"url": "https://other.example"}, "corporate", actor="client-sp-1")
    bench.take("issuer.accept", shown, "corporate", actor="client-sp-1")
    assert speaks() == ["sp-1", "mo"]
    bench.take("issuer.set", form | {"parties": ["sp-1"]}, "corporate", party="mo", actor="client-mo")
    assert speaks() == ["sp-1"]
    bench.take("issuer.set", form | {"url": "https://mine.example"}, "corporate", party="mo", actor="client-mo")
    assert speaks() == ["mo"]
    bench.take("issuer.accept", shown | {"url": "https://mine.example"}, "corporate", actor="client-sp-1")
    bench.take("issuer.decline", None, "corporate", actor="client-sp-1")
    assert speaks() == ["mo"]


# ---------------------------------------------------------------- laws


@pytest.mark.spec("PLAT-07")
@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["user", "client", "set", "rotate", "end"]),
                          st.integers(0, 9)), max_size=25))  # fmt: skip
def test_no_two_users_that_one_person_can_come_in_as_are_two_persons(steps: list[tuple[int, str, int]]) -> None:
    bench = Bench()
    users = [_manager(bench, f"user {i}", "client-sp-1") for i in range(2)]
    clients, opens = ["client-sp-1"], {users[0]}  # what the first user can come in as
    for number, (by, step, on) in enumerate(steps):
        everybody = [*users, *clients]
        actor, other = everybody[by % len(everybody)], users[on % len(users)]
        one = clients[on % len(clients)]
        if step == "user":
            users.append(changed := _manager(bench, f"another {number}", actor))
        elif step == "client":
            clients.append(changed := _managing(bench, actor))
        elif step == "set":
            bench.take("user.change_password", {"password": PASSWORD}, changed := other, actor=actor)
        else:
            form = {"secret_hash": OTHER, "overlap_s": 0 if step == "end" else 60}
            bench.take("client.rotate", form, changed := one, actor=actor)
        if actor in opens:
            opens.add(changed)
        elif actor != changed and step in ("set", "end"):
            opens.discard(changed)  # somebody else set it
    mine = [bench.state.get(User, name) for name in users if name in opens]
    assert all(persons(first) & persons(second) for first in mine for second in mine)


def _manager(bench: Bench, name: str, actor: str) -> str:
    form = {"login": login_digest("demo", name), "password": PASSWORD, "scopes": ["write", "manage"]}
    return str(bench.take("user.create", form, actor=actor)["id"])


def _managing(bench: Bench, actor: str) -> str:
    form = {"name": "Managing", "scopes": ["manage"], "secret_hash": HASH}
    return str(bench.take("client.create", form, actor=actor)["id"])


@given(
    st.lists(st.sampled_from(["create", "rotate", "revoke", "user", "lock", "grant", "webhook", "sweep"]), max_size=15)
)
def test_a_refused_command_changes_nothing_and_the_journal_gives_the_state_back(steps: list[str]) -> None:
    bench = Bench()
    for step in steps:
        before = list(bench.state.kinds())
        try:
            _step(bench, step)
        except CoflexError:
            assert list(bench.state.kinds()) == before
    assert list(chain.breaks(bench.journal.entries())) == []
    newest = {(one.kind, one.id): json.loads(one.body or b"null") for one in bench.journal.latest()}
    assert set(newest) == {(kind, id) for kind, id, _, _ in bench.state.kinds()}


def _step(bench: Bench, step: str) -> None:
    users = [one.id for one in bench.state.all(User)]
    made = [one.id for one in bench.state.all(Client)][-1]
    if step == "create":
        a_client(bench)
    elif step == "rotate":
        bench.take("client.rotate", {"secret_hash": OTHER}, made)
    elif step == "revoke":
        bench.take("client.revoke", None, made)
    elif step == "user":
        a_user(bench)
    elif step == "lock":
        bench.take("user.lock", None, users[0] if users else "none")
    elif step == "grant":
        a_grant(bench, users[0] if users else "none")
    elif step == "webhook":
        bench.take("webhook.create", {"url": "https://example.org/"}, actor="client-sp-1")
    else:
        bench.take("token.revoke", None, made)
