"""The stream of the benches in Bytewax: the source's own batches go through the model whole.

    python -m bytewax.run "tests.bench.peers.stream_bytewax:flow('MODEL', 'FEATURES', 'SERVERS', 'INPUT', 'OUTPUT')"

`flat_map_batch` costs less than `collect`, which needs a key. Without a recovery store Bytewax keeps no positions: it
does less than the others here.
"""

from bytewax import operators as op
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from tests.bench.peers.stream_features import scoring

BATCH = 1000


def flow(*given: str) -> Dataflow:
    model, features, servers, source, target = given
    score = scoring(model, features)

    def scored(batch: list[KafkaSourceMessage]) -> list[KafkaSinkMessage]:
        values = score([message.value for message in batch])
        return [KafkaSinkMessage(message.key, value) for message, value in zip(batch, values, strict=True)]

    made = Dataflow("score")
    records = op.input("in", made, KafkaSource([servers], [source], batch_size=BATCH))
    op.output("out", op.flat_map_batch("score", records, scored), KafkaSink([servers], target))
    return made
