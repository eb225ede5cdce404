"""Publishes numbered readings as JSON with confluent-kafka: BROKERS TOPIC FROM TO."""

import json
import sys

from confluent_kafka import Producer

brokers, topic, first, end = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
failures = []
producer = Producer({"bootstrap.servers": brokers, "compression.type": "zstd", "linger.ms": 20})
for n in range(first, end):
    sensor = f"confluent-{n % 7}"
    reading = {"n": n, "sensor": sensor, "at": "2026-01-31T08:15:00Z", "value": n + 0.5, "note": None}
    producer.produce(
        topic,
        key=sensor,
        value=json.dumps(reading),
        headers={"origin": "confluent-kafka"},
        on_delivery=lambda error, _: failures.append(error) if error else None,
    )
    producer.poll(0)
left = producer.flush(30)
if left or failures:
    sys.exit(f"{left} not sent, {failures[:3]}")
print(f"{end - first} sent")
