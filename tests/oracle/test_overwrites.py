"""Whatever changes the base through any loader must be reported, whatever it is called."""

import pytest

from adapterscan.formats.accounting import Role
from tests.oracle.overwrites import SETTINGS, sweep

REPORTED = {Role.OVERWRITE, Role.EMBEDDING, Role.DECLARED}


@pytest.fixture(scope="module", params=SETTINGS)
def swept(request, tmp_path_factory):
    """Return (setting, names that reached the base, roles of all names, errors of loaders)."""
    return request.param, *sweep(request.param, tmp_path_factory.mktemp("overwrites"))


def test_every_tensor_that_changed_the_base_is_reported(swept):
    _, reached, _, _ = swept
    assert reached
    assert not [item for item in reached if item.role not in REPORTED]


def test_only_what_the_config_declares_changes_the_base_as_declared(swept):
    setting, reached, _, _ = swept
    declared = {item.why for item in reached if item.role is Role.DECLARED}
    allowed = {"bias all": {"bias: all"}}
    assert declared <= allowed.get(setting, set())


def test_a_factor_of_this_adapter_never_changes_the_base(swept):
    _, reached, roles, _ = swept
    factors = {name for (_, name), item in roles.items() if item.role is Role.ADAPTER}
    assert factors.isdisjoint(item.name for item in reached)
