"""What a function's objects are called, and the labels that find them.

Labels are those Kubernetes recommends (kubernetes.io/docs/concepts/overview/working-with-objects/common-labels), and
two of our own.
"""

import re
from typing import Final

from sunup.bundle.manifest import Manifest
from sunup.errors import UsageError

WORKER: Final = "sunup-worker"  # the service account of every worker pod, and nobody else
MANAGER: Final = "sunup"  # the field manager that applies
FUNCTION: Final = "sunup.dev/function"
DIGEST: Final = "sunup.dev/digest"
MODEL: Final = "sunup.dev/model"
COMPONENT: Final = "app.kubernetes.io/component"
LABEL: Final = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")  # DNS-1035
LABEL_CHARS_MAX: Final = 63
# The longest of what is made of a name: tag-name is a host (canary-NAME), and KEDA names keda-hpa-NAME-stream.
CALLS_CHARS_MAX: Final = LABEL_CHARS_MAX - len("canary-")
STREAM_CHARS_MAX: Final = LABEL_CHARS_MAX - len("keda-hpa--stream")


def stream_name(function: str) -> str:
    """Of the Deployment, ScaledObject and TriggerAuthentication of the topic it scores."""
    return f"{function}-stream"


def settings_name(function: str, contents: str) -> str:
    """Of the Secret with these contents, a hash in hexadecimal."""
    return f"{function}-settings-{contents[:8]}"


def check_name(manifest: Manifest) -> None:
    """Can the function be called so in Kubernetes? Raises UsageError with what to change."""
    name, most = manifest.function, STREAM_CHARS_MAX if manifest.stream else CALLS_CHARS_MAX
    if not LABEL.fullmatch(name):
        raise UsageError(
            f"A function called {name!r} cannot run on Kubernetes: names there are small letters, digits and -, begin "
            "with a letter and do not end with -. Write another [function] name in function.toml."
        )
    if len(name) > most:
        raise UsageError(
            f"The name {name} has {len(name)} characters, and on Kubernetes {most} is the most: others are made of it. "
            "Write a shorter [function] name in function.toml."
        )


def common() -> dict[str, str]:
    """Labels of what all functions share."""
    return {
        "app.kubernetes.io/name": MANAGER,
        "app.kubernetes.io/part-of": MANAGER,
        "app.kubernetes.io/managed-by": MANAGER,
    }


def labels(manifest: Manifest, digest: str, component: str) -> dict[str, str]:
    """Labels of one of a function's objects. `component`: calls, stream or settings."""
    version = manifest.model.version[:LABEL_CHARS_MAX].strip("-_.")
    return {
        **common(),
        "app.kubernetes.io/instance": manifest.function,
        "app.kubernetes.io/version": re.sub(r"[^A-Za-z0-9._-]", "-", version),
        COMPONENT: component,
        FUNCTION: manifest.function,
        DIGEST: digest[:LABEL_CHARS_MAX],
    }


def model(manifest: Manifest) -> dict[str, str]:
    """The annotation that says which model this is: labels can hold no slash."""
    return {MODEL: f"{manifest.model.name}/{manifest.model.version}"}
