"""A topic that keeps the newest record of each key: made where there is none, looked at where there is one."""

from typing import Any, Final

from kafka import errors
from kafka.admin import ConfigResource, ConfigResourceType

from sunup.limits import CHANGELOG_SEGMENT_BYTES
from sunup.stream.broker import BrokerError, Trouble

_POLICY: Final = "cleanup.policy"
_CONFIGS: Final = {
    _POLICY: "compact",
    "segment.bytes": str(CHANGELOG_SEGMENT_BYTES),
    "min.cleanable.dirty.ratio": "0.1",
}
_NOT_PERMITTED: Final = (errors.TopicAuthorizationFailedError, errors.ClusterAuthorizationFailedError)


def ensure(admin: Any, servers: str, topic: str, partitions: int) -> bool:
    """See stream.admin.Admin.ensure_compacted; whether it has more partitions now. Raises kafka-python's errors."""
    count = _partitions(admin, topic)
    if count == 0:
        count = _create(admin, servers, topic, partitions)
    policy = _policy(admin, topic)
    if policy is not None and policy.replace(" ", "").split(",") != ["compact"]:
        alter = f"kafka-configs.sh --bootstrap-server {servers} --alter --entity-type topics --entity-name {topic}"
        what = f"topic {topic} at {servers} has the {_POLICY} {policy}, and has to keep the newest record of each key"
        raise BrokerError(Trouble.FAILED, f"{what}: {alter} --add-config {_POLICY}=compact")
    if count > partitions:
        what = f"topic {topic} at {servers} has {count} partitions, and what it is the changelog of has {partitions}"
        raise BrokerError(Trouble.FAILED, f"{what}: delete it, and it is made again")
    if count < partitions:
        _grow(admin, servers, topic, count, partitions)
    return count < partitions


def _partitions(admin: Any, topic: str) -> int:
    (found,) = admin.describe_topics([topic])
    error = errors.for_code(found["error_code"])
    if error is errors.UnknownTopicOrPartitionError:
        return 0
    if error is not errors.NoError:
        raise error(topic)
    return len(found["partitions"])


def _create(admin: Any, servers: str, topic: str, partitions: int) -> int:
    try:
        admin.create_topics({topic: {"num_partitions": partitions, "configs": _CONFIGS}}, wait_for_metadata=True)
    except errors.TopicAlreadyExistsError:  # another worker was faster
        return max(1, _partitions(admin, topic))
    except _NOT_PERMITTED as error:
        create = f"kafka-topics.sh --bootstrap-server {servers} --create --topic {topic} --partitions {partitions}"
        what = f"topic {topic} does not exist at {servers}, and may not be made from here: {create}"
        raise BrokerError(Trouble.NOT_PERMITTED, f"{what} --config {_POLICY}=compact") from error
    return partitions


def _grow(admin: Any, servers: str, topic: str, count: int, partitions: int) -> None:
    try:
        admin.create_partitions({topic: partitions})
    except _NOT_PERMITTED as error:
        alter = f"kafka-topics.sh --bootstrap-server {servers} --alter --topic {topic} --partitions {partitions}"
        what = f"topic {topic} at {servers} has {count} partitions and needs {partitions}"
        raise BrokerError(Trouble.NOT_PERMITTED, f"{what}, which may not be changed from here: {alter}") from error
    except errors.InvalidPartitionsError:
        pass  # another worker was faster
    admin.wait_for_topics([topic])


def _policy(admin: Any, topic: str) -> str | None:
    """Its cleanup.policy; None: not for us to see."""
    try:
        found = admin.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, topic, {_POLICY: None})], config_filter="all"
        )
    except _NOT_PERMITTED:
        return None
    (configs,) = [topics[topic] for topics in found.values()]
    return str(configs[_POLICY]["value"]) if _POLICY in configs else None
