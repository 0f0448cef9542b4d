"""Collaborators that every part of one worker's pipeline shares."""

from dataclasses import dataclass

from octane_analytics.events.event import Decode
from octane_analytics.interfaces import Clock, Observer, Tracer
from octane_analytics.pipeline.dlq_limit import DlqLimit
from octane_analytics.pipeline.outages import Outages


@dataclass(frozen=True, slots=True)
class PipelineContext:
    clock: Clock
    decode: Decode
    observer: Observer
    outages: Outages
    dlq_limit: DlqLimit
    tracer: Tracer | None = None
