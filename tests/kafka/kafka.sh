#!/usr/bin/env bash
# Apache Kafka for tests and benchmarks: real brokers in KRaft mode, on loopback, nothing installed.
#
#   kafka.sh fetch                          puts the jars into the cache folder and prints that folder
#   kafka.sh make DIR PORT BROKERS [secure] makes DIR/broker-1 … (takes ports PORT to PORT + 3 × BROKERS - 1)
#   kafka.sh serve DIR/broker-N             runs one broker until standard input closes or it is told to stop
#   kafka.sh start DIR PORT BROKERS [secure] all of it: prints "ready HOST:PORT,…" and serves until Ctrl-C
#   kafka.sh java ARGUMENTS…                runs Java with the jars in the class path
#
# Needs Java 17 and, the first time, Maven with its registry in reach. Exit code 69: one of them is not there.
# CAIRN_KAFKA_CACHE names the cache folder (default: apache-kafka in the target folder).
# Broker N listens on PORT + 3 (N - 1): plain text; + 1: the controllers among themselves; + 2, if secure: SASL over TLS,
# PLAIN and SCRAM, with the user "city" of the password in DIR/password and the root certificate DIR/ca.pem.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cache="${CAIRN_KAFKA_CACHE:-${CARGO_TARGET_DIR:-$here/../../target}/apache-kafka}"
cluster=Y2Fpcm4tdGVzdC1jbHVzdA

unavailable() {
  echo "$1" >&2
  exit 69
}

fetch() {
  command -v java > /dev/null || unavailable "Apache Kafka needs Java 17, which is not here"
  mkdir -p "$cache"
  exec 9> "$cache/lock"
  flock 9
  local wanted="$cache/lib-$(sha256sum "$here/pom.xml" | cut -c 1-12)"
  if [ ! -d "$wanted" ]; then
    command -v mvn > /dev/null || unavailable "Apache Kafka needs Maven to be fetched, which is not here"
    rm -rf "$cache/lib.unfinished"
    cp "$here/pom.xml" "$cache/pom.xml"
    timeout 300 mvn -q -B -f "$cache/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
      -DoutputDirectory="$cache/lib.unfinished" > "$cache/fetch.log" 2>&1 ||
      unavailable "Apache Kafka cannot be fetched: see $cache/fetch.log"
    mv "$cache/lib.unfinished" "$wanted"
  fi
  exec 9>&-
  lib="$wanted"
}

run_java() {
  exec java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xmx"${CAIRN_KAFKA_HEAP:-384m}" -XX:-UsePerfData \
    -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$lib/*" "$@"
}

# A root certificate, and one for the brokers that it signed.
make_certificates() {
  local dir="$1" password="$2"
  local tool=(keytool -storetype PKCS12 -storepass:env STORE_PASSWORD -noprompt)
  export STORE_PASSWORD="$password"
  "${tool[@]}" -keystore "$dir/ca.p12" -genkeypair -alias ca -keyalg EC -groupname secp256r1 -dname CN=test-root \
    -validity 30 -ext bc:c=ca:true -ext ku:c=keyCertSign 2> /dev/null
  "${tool[@]}" -keystore "$dir/ca.p12" -exportcert -rfc -alias ca > "$dir/ca.pem" 2> /dev/null
  "${tool[@]}" -keystore "$dir/broker.p12" -genkeypair -alias broker -keyalg EC -groupname secp256r1 \
    -dname CN=localhost -validity 30 2> /dev/null
  "${tool[@]}" -keystore "$dir/broker.p12" -certreq -alias broker 2> /dev/null |
    "${tool[@]}" -keystore "$dir/ca.p12" -gencert -alias ca -validity 30 -rfc \
      -ext san=ip:127.0.0.1,dns:localhost 2> /dev/null > "$dir/broker.pem"
  cat "$dir/ca.pem" >> "$dir/broker.pem"
  "${tool[@]}" -keystore "$dir/broker.p12" -importcert -alias ca -file "$dir/ca.pem" 2> /dev/null
  "${tool[@]}" -keystore "$dir/broker.p12" -importcert -alias broker -file "$dir/broker.pem" 2> /dev/null
}

properties() {
  local dir="$1" port="$2" brokers="$3" secure="$4" node="$5" base voters="" replicas at
  base=$((port + 3 * (node - 1)))
  for ((at = 1; at <= brokers; at++)); do voters+="${voters:+,}$at@127.0.0.1:$((port + 3 * (at - 1) + 1))"; done
  replicas=$brokers
  local listeners="PLAINTEXT://127.0.0.1:$base" protocols="PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL"
  if [ "$secure" = secure ]; then listeners+=",SECURE://127.0.0.1:$((base + 2))"; fi
  cat << END
process.roles=broker,controller
node.id=$node
controller.quorum.voters=$voters
controller.listener.names=CONTROLLER
listener.security.protocol.map=$protocols
listeners=$listeners,CONTROLLER://127.0.0.1:$((base + 1))
advertised.listeners=$listeners
log.dirs=$dir/broker-$node/log
num.partitions=1
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=$replicas
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=$replicas
transaction.state.log.min.isr=1
default.replication.factor=$replicas
min.insync.replicas=$((brokers > 2 ? 2 : 1))
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
log.cleaner.backoff.ms=200
log.retention.check.interval.ms=1000
log.segment.delete.delay.ms=100
log.cleaner.dedupe.buffer.size=4194304
num.network.threads=2
num.io.threads=4
END
  if [ "$secure" = secure ]; then
    local password
    password="$(cat "$dir/password")"
    cat << END
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
ssl.keystore.type=PKCS12
ssl.keystore.location=$dir/broker.p12
ssl.keystore.password=$password
ssl.key.password=$password
listener.name.secure.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_city="$password";
listener.name.secure.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.secure.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
END
  fi
}

make_cluster() {
  local dir="$1" port="$2" brokers="$3" secure="${4:-plain}" node
  mkdir -p "$dir"
  dir="$(cd "$dir" && pwd)"
  local users=()
  if [ "$secure" = secure ]; then
    (umask 077 && head -c 18 /dev/urandom | base64 | tr -d '/+=\n' > "$dir/password")
    make_certificates "$dir" "$(cat "$dir/password")"
    users=(--add-scram "SCRAM-SHA-256=[name=city,password=$(cat "$dir/password")]"
      --add-scram "SCRAM-SHA-512=[name=city,password=$(cat "$dir/password")]")
  fi
  for ((node = 1; node <= brokers; node++)); do
    mkdir -p "$dir/broker-$node"
    (umask 077 && properties "$dir" "$port" "$brokers" "$secure" "$node" > "$dir/broker-$node/server.properties")
    (run_java kafka.tools.StorageTool format -t "$cluster" -c "$dir/broker-$node/server.properties" \
      ${users[@]+"${users[@]}"} > "$dir/broker-$node/format.log" 2>&1)
  done
}

# The broker ends with this script, and the script when its standard input closes: whoever started it cannot leave it behind.
# With CAIRN_KAFKA_DELETE, that folder goes with it.
serve() {
  local dir="$1"
  run_java kafka.Kafka "$dir/server.properties" >> "$dir/server.log" 2>&1 < /dev/null &
  broker=$!
  (
    cat > /dev/null
    kill -9 $broker 2> /dev/null
  ) <&0 > /dev/null 2>&1 &
  watcher=$!
  trap 'kill -9 $broker $watcher 2> /dev/null || true; [ -z "${CAIRN_KAFKA_DELETE:-}" ] || rm -rf "$CAIRN_KAFKA_DELETE"' EXIT
  trap 'exit 0' INT TERM
  wait "$broker" 2> /dev/null || true
}

wait_for() {
  local port="$1" left=300
  until (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null; do
    left=$((left - 1))
    [ "$left" -gt 0 ] || return 1
    sleep 0.2
  done
}

case "${1:-}" in
  fetch)
    fetch
    echo "$lib"
    ;;
  make)
    fetch
    make_cluster "${@:2}"
    ;;
  serve)
    fetch
    serve "$2"
    ;;
  start)
    fetch
    make_cluster "${@:2}"
    brokers=""
    started=()
    trap 'kill "${started[@]}" 2> /dev/null || true' EXIT
    trap 'exit 0' INT TERM
    for ((node = 1; node <= $4; node++)); do
      serve "$2/broker-$node" < <(tail -f /dev/null --pid=$$) &
      started+=($!)
      brokers+="${brokers:+,}127.0.0.1:$(($3 + 3 * (node - 1)))"
    done
    for ((node = 1; node <= $4; node++)); do wait_for $(($3 + 3 * (node - 1))); done
    echo "ready $brokers"
    wait
    ;;
  java)
    fetch
    run_java "${@:2}"
    ;;
  *)
    sed -n '2,13p' "${BASH_SOURCE[0]}"
    exit 64
    ;;
esac
