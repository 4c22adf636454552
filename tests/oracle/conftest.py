"""Only run when this folder is named: it needs frameworks that adapterscan must never need."""

import pytest


def pytest_ignore_collect(collection_path, config):
    """Leave the folder out of a plain `pytest`."""
    return None if any("oracle" in str(arg) for arg in config.invocation_params.args) else True


def pytest_collection_modifyitems(items):
    """PEFT and transformers warn a lot; elsewhere warnings are errors."""
    for item in items:
        item.add_marker(pytest.mark.filterwarnings("ignore"))
