"""Which rule settles a product: data of the platform, or of one's own."""

from __future__ import annotations

import pytest

from coflex.domain.errors import Refused
from coflex.domain.unit import Scope
from coflex.settlement.reading import read_rule
from coflex.settlement.shelf import load_rule, rule_text, rulebook
from support.tested import product

MINE = """\
id: mine
version: 3
title: Mine
source: {document: own, section: "1"}
delivered: {by: metered}
payers: {dso_congestion: dso}
"""
LOCAL, GLOBAL = product(id="p1", scope=Scope.LOCAL), product(id="p2", scope=Scope.GLOBAL)


@pytest.mark.spec("SET-02", "SET-03")
def test_which_rule_settles_a_product_is_data() -> None:
    book = rulebook()
    assert (book.of(LOCAL), book.of(GLOBAL)) == (load_rule("local_congestion"), load_rule("mfrr"))
    own = "version: 1\nscopes: {local: uftp, global: afrr}\nproducts: {p1: mine}\n"
    later = rule_text("afrr").replace("version: 1", "version: 7")
    book = rulebook({"products": own, "mine": MINE, "afrr": later})
    assert (book.id_of(LOCAL), book.of(LOCAL)) == ("mine", read_rule(MINE, "mine"))
    assert book.of(GLOBAL) == read_rule(later, "afrr")
    assert rulebook({"products": own}).of(LOCAL) is None


def test_faults_of_all_own_documents_are_told_at_once() -> None:
    faulty = "version: 1\nscopes: {local: uftp, regional: x}\n"
    with pytest.raises(Refused) as refused:
        rulebook({"products": faulty, "yours": MINE, "bad": "id: bad\n"})
    found = {one.place: one.code for one in refused.value.findings}
    assert found["products.yaml, line 2: scopes.regional"] == "not_offered"
    assert found["yours.yaml"] == "wrong_id"
    assert found["bad.yaml: title"] == "missing_key"
    with pytest.raises(Refused) as refused:
        rulebook({"products": "version: 1\nscopes: {local: uftp}\n"})
    (fault,) = refused.value.findings
    assert (fault.place, fault.code) == ("products.yaml, line 2: scopes.global", "missing_key")
