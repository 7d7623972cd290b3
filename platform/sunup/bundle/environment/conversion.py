"""A conversion in the environment it needs: here, or one with the versions the model was made with."""

import time
from collections.abc import Callable

from sunup.bundle.environment.pins import differing
from sunup.bundle.environment.solve import environment, environments
from sunup.bundle.job import Job, Result
from sunup.bundle.packager import Packager


def convert(packager: Packager, job: Job, on_stage: Callable[[str, float], None]) -> Result:
    """Packager.convert, in a child of another environment where the model asks for one. `on_stage` is also told
    "environment". Raises ConversionRefused with the solver's reason, and what Packager.convert does."""
    pins = differing(job.requirements)
    if not pins:
        return packager.convert(job, on_stage)
    started = time.perf_counter()
    other = packager.elsewhere(environment(job.requirements, pins, environments()))
    on_stage("environment", time.perf_counter() - started)
    try:
        return other.convert(job, on_stage)
    finally:
        other.close()
