// Publishes numbered readings as JSON with kafkajs: BROKERS TOPIC FROM TO.
const { Kafka, Partitioners, CompressionTypes, logLevel } = require("kafkajs");

async function main([brokers, topic, first, end]) {
  const kafka = new Kafka({ brokers: brokers.split(","), logLevel: logLevel.ERROR });
  const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner });
  const messages = [];
  for (let n = Number(first); n < Number(end); n++) {
    const sensor = `kafkajs-${n % 7}`;
    const reading = { n, sensor, at: "2026-01-31T08:15:00Z", value: n + 0.5, note: null };
    messages.push({ key: sensor, value: JSON.stringify(reading), headers: { origin: "kafkajs" } });
  }
  await producer.connect();
  await producer.send({ topic, compression: CompressionTypes.GZIP, messages });
  await producer.disconnect();
  console.log(`${messages.length} sent`);
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
