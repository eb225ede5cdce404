"""Publishes numbered readings as JSON with kafka-python: BROKERS TOPIC FROM TO."""

import json
import sys

from kafka import KafkaProducer

brokers, topic, first, end = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
producer = KafkaProducer(bootstrap_servers=brokers.split(","), compression_type="gzip", linger_ms=20)
sent = []
for n in range(first, end):
    sensor = f"kafka-python-{n % 7}"
    reading = {"n": n, "sensor": sensor, "at": "2026-01-31T08:15:00Z", "value": n + 0.5, "note": None}
    sent.append(producer.send(topic, key=sensor.encode(), value=json.dumps(reading).encode(), headers=[("empty", b"")]))
producer.flush(30)
for record in sent:
    record.get(timeout=30)
producer.close()
print(f"{end - first} sent")
