"""Fields that a reload changes, and those that need a restart."""

from dataclasses import fields, replace
from typing import Any

import pytest

from octane_analytics.pipeline.log_confirmation import OwnWord
from octane_analytics.settings.loading import load
from octane_analytics.settings.sections import BatchSettings
from octane_analytics.worker.process import _options
from octane_analytics.worker.reload import keep_restart_only


@pytest.mark.parametrize("name", [field.name for field in fields(BatchSettings)])
def test_reload_changes_every_setting_of_batches(name: str) -> None:
    old = load({}).settings
    changed: Any = {name: object()}
    new = replace(old, batch=replace(old.batch, **changed))
    settings, ignored = keep_restart_only(old, new)
    assert (settings, ignored) == (new, [])


def test_reload_keeps_group_until_a_restart() -> None:
    old = load({}).settings
    new = load({"KAFKA_GROUP_ID": "other", "INSERTS_PER_SECOND": "0.5"}).settings
    settings, ignored = keep_restart_only(old, new)
    assert ignored == ["KAFKA_GROUP_ID"]
    assert settings.kafka.group_id == old.kafka.group_id
    assert settings.batch.inserts_per_second == 0.5


def test_process_inserts_at_its_share_of_the_limit() -> None:
    settings = load({"INSERTS_PER_SECOND": "4", "WORKER_PROCS": "8"}).settings
    options = _options(settings, lambda: 9, OwnWord())
    assert (options.inserts_per_second, options.processes()) == (4.0, 9)
