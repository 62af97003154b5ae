"""Webhooks: where the notes of a party's feed are sent (PLAT-01)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from coflex.domain.errors import Conflict, Finding, Forbidden, refuse
from coflex.register.access import Webhook, WebhookProgress, url_fault
from coflex.service.machine import CREATED, PLATFORM, Context, Outcome, Verb
from coflex.service.state import State
from coflex.service.verbs.managing import (
    MOST_NAME,
    Form,
    Nothing,
    Write,
    managed,
    may_manage,
    note_of,
    room_for,
    written,
)

MOST_WEBHOOKS, MOST_KINDS = 20, 100
_KIND = re.compile(r"\*|[a-z_]+(\.[a-z_]+)*(\.\*)?")


class WebhookForm(Form, frozen=True):
    """Where notes of which kinds go."""

    url: str
    kinds: tuple[str, ...] = ("*",)


class Enabling(Form, frozen=True):
    """A webhook is used again, from where it was or from now on."""

    from_now: bool = False


class Progress(Form, frozen=True):
    """How far one webhook is."""

    webhook: str
    number: int
    position: int
    failing_since: datetime | None = None


class Delivered(Form, frozen=True):
    """How far webhooks are."""

    webhooks: tuple[Progress, ...]


class Disabling(Form, frozen=True):
    """Why a webhook is used no more."""

    reason: str


def _takes_part(context: Context) -> None:
    """Raises Forbidden for a party without a role that counts: the platform calls nobody for it."""
    if not context.roles and context.actor not in PLATFORM:
        raise Forbidden("Webhooks are for parties that were approved.", "Wait for the operator's decision.")


def _webhook_faults(form: WebhookForm) -> Iterator[Finding]:
    # Whether private networks are called is the server's to say, at the door and with each delivery.
    fault = url_fault(form.url, private=True)
    if fault:
        yield Finding("url", "bad_address", fault)
    if not 1 <= len(form.kinds) <= MOST_KINDS:
        yield Finding("kinds", "bad_kinds", f"Name 1 to {MOST_KINDS} kinds of notes, or '*' for all.")
    for position, kind in enumerate(form.kinds):
        if not _KIND.fullmatch(kind) or len(kind) > MOST_NAME:
            yield Finding(f"kinds[{position}]", "bad_kind", "Kinds are as 'unit.registered', 'unit.*' or '*'; correct.")


def _create_webhook(state: State, context: Context, form: WebhookForm) -> Outcome:
    """Notes from this entry on go to it."""
    may_manage(state, context)
    _takes_part(context)
    room_for(state, Webhook, context.party, MOST_WEBHOOKS)
    refuse("The webhook", _webhook_faults(form))
    webhook = Webhook(context.new_id("webhook"), context.party, form.url, form.kinds, context.at)
    return written("webhook.created", webhook, [_progress(webhook, context.number, 0)], CREATED)


def _progress(webhook: Webhook, number: int, position: int, failing_since: datetime | None = None) -> Write:
    record = WebhookProgress(webhook.id, webhook.party, number, position, failing_since)
    return WebhookProgress, webhook.id, record


def _change_webhook(state: State, context: Context, webhook: Webhook, form: WebhookForm) -> Outcome:
    _takes_part(context)
    refuse("The webhook", _webhook_faults(form))
    return written("webhook.changed", replace(webhook, url=form.url, kinds=form.kinds))


def _rotate_webhook(state: State, context: Context, webhook: Webhook, form: Nothing) -> Outcome:
    """A new secret signs, and for a day the old one as well."""
    rotated = replace(webhook, generation=webhook.generation + 1, rotated=context.at)
    return written("webhook.rotated", rotated)


def _remove_webhook(state: State, context: Context, webhook: Webhook, form: Nothing) -> Outcome:
    writes: tuple[Write, ...] = ((Webhook, webhook.id, None),)
    if state.find(WebhookProgress, webhook.id) is not None:
        writes += ((WebhookProgress, webhook.id, None),)
    return Outcome({"id": webhook.id}, writes, (note_of("webhook.removed", webhook.id, webhook.party),))


def _enable_webhook(state: State, context: Context, webhook: Webhook, form: Enabling) -> Outcome:
    """From where it was, so that nothing is missed, or from now on. Raises Conflict when it is on."""
    _takes_part(context)
    if webhook.enabled:
        raise Conflict("The webhook is on.", "Nothing is to be done.")
    at = state.get(WebhookProgress, webhook.id)
    number, position = (context.number, 0) if form.from_now else (at.number, at.position)
    on = replace(webhook, enabled=True, reason="")
    return written("webhook.enabled", on, [_progress(webhook, number, position)])


def _disable_webhook(state: State, context: Context, webhook: Webhook, form: Disabling) -> Outcome:
    """The platform gives it up, or its party turns it off."""
    if not webhook.enabled:
        raise Conflict("The webhook is off already.", "Enable it, or leave it.")
    if len(form.reason) > MOST_NAME:
        refuse("The reason", [Finding("reason", "too_long", f"A reason has at most {MOST_NAME} characters.")])
    return written("webhook.disabled", replace(webhook, enabled=False, reason=form.reason), reason=form.reason)


def _delivered(state: State, context: Context, form: Delivered) -> Outcome:
    """Keeps how far webhooks are; one that was removed meanwhile is passed over, of one told twice the furthest
    counts."""
    furthest = {one.webhook: one for one in sorted(form.webhooks, key=lambda one: (one.number, one.position))}
    writes = []
    for one in furthest.values():
        webhook = state.find(Webhook, one.webhook)
        if webhook is not None:
            writes.append(_progress(webhook, one.number, one.position, one.failing_since))
    return Outcome({"webhooks": len(writes)}, tuple(writes))


# `public`: the records say who may, whatever the roles.
VERBS = (
    Verb("webhook.create", WebhookForm, _create_webhook, kind=Webhook, public=True),
    Verb("webhook.change", WebhookForm, managed(Webhook, _change_webhook), kind=Webhook, public=True),
    Verb("webhook.rotate", Nothing, managed(Webhook, _rotate_webhook), kind=Webhook, public=True),
    Verb("webhook.remove", Nothing, managed(Webhook, _remove_webhook, on_behalf=True), kind=Webhook, public=True),
    Verb("webhook.enable", Enabling, managed(Webhook, _enable_webhook), kind=Webhook, public=True),
    Verb("webhook.disable", Disabling, managed(Webhook, _disable_webhook, on_behalf=True), kind=Webhook, public=True),
    Verb("webhook.delivered", Delivered, _delivered),
)
