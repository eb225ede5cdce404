// Publishes numbered readings as JSON, as `producer_*.py` and `producer_kafkajs.js` do: BROKERS TOPIC FROM TO.

import java.util.Properties;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Future;

public final class Producer {
    public static void main(String[] arguments) throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", arguments[0]);
        settings.put("key.serializer", "org.apache.kafka.common.serialization.StringSerializer");
        settings.put("value.serializer", "org.apache.kafka.common.serialization.StringSerializer");
        settings.put("compression.type", "lz4");
        settings.put("linger.ms", "20");
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(settings)) {
            for (long n = Long.parseLong(arguments[2]); n < Long.parseLong(arguments[3]); n++) {
                String sensor = "java-" + n % 7;
                String value = "{\"n\":" + n + ",\"sensor\":\"" + sensor + "\",\"at\":\"2026-01-31T08:15:00Z\",\"value\":" + n
                    + ".5,\"note\":null}";
                sent.add(producer.send(new ProducerRecord<>(arguments[1], sensor, value)));
            }
            producer.flush();
            for (Future<RecordMetadata> record : sent) {
                record.get();
            }
        }
        System.out.println(sent.size() + " sent");
    }
}
