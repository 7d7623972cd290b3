"""Readers that died and that nobody replaces.

Their places in the group are kept for them until their sessions end, their partitions are nobody's so long, and when
the group shares partitions out meanwhile, all of it waits for them. Somebody who knows that they are dead says so.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from kafka import KafkaProducer, errors
from kafka.admin import MemberToRemove, TransactionState

from sunup.stream.kafka.clients import MS, TRANSACTIONS, WRITER, Clients

_NONE_TO_END: Final = (errors.TransactionalIdNotFoundError, errors.TransactionalIdAuthorizationFailedError)


def dismiss(admin: Any, clients: Clients, group: str, is_dead: Callable[[str], bool]) -> Sequence[str]:
    """Remove the members whose names are those of dead readers; the names. Raises kafka-python's errors."""
    found = admin.describe_groups([group])[group]
    if found["error"] and found["group_state"] != "Dead":  # which is one that is not there
        raise errors.KafkaError(found["error"])
    members = [(each["group_instance_id"], each["member_id"]) for each in found["members"]]
    dead = [(name, member) for name, member in members if name and is_dead(name)]
    try:
        for name, _ in dead:
            _end_transaction(admin, clients, f"{group}-{name}")
    finally:
        if dead:
            # By both of them: whoever has come by that name since then is another member, and stays.
            admin.remove_group_members(group, [MemberToRemove(member, name) for name, member in dead])
    return [name for name, _ in dead]


def _end_transaction(admin: Any, clients: Clients, transactional_id: str) -> None:
    """The brokers would at its time-out, or ten seconds after that; until then nobody is told where to read on."""
    try:
        state = admin.describe_transactions([transactional_id])[transactional_id].state
    except _NONE_TO_END:
        return
    if state is TransactionState.ONGOING:
        more = {**WRITER, **TRANSACTIONS, "max_block_ms": MS // 4}
        producer = clients.open(KafkaProducer, transactional_id=transactional_id, **more)
        try:
            producer.init_transactions()
        finally:
            producer.close(0)
