# syntax=docker/dockerfile:1
# One image with one binary: every role of Cairn is a command of it.

FROM rust:1.95-slim-trixie AS build
# The C parts: librdkafka, SQLite, zstd, xz, AWS-LC. They are built from source and linked in.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends build-essential cmake perl pkg-config \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package cairn-cli \
 && install -D --mode=0755 target/release/cairn /out/cairn

FROM debian:trixie-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --user-group --home-dir /var/lib/cairn --shell /usr/sbin/nologin cairn \
 && install -d --owner=cairn --group=cairn --mode=0700 /var/lib/cairn
COPY --from=build /out/cairn /usr/local/bin/cairn
USER cairn
WORKDIR /var/lib/cairn
# Keys and data live here: mount a volume.
VOLUME /var/lib/cairn
ENTRYPOINT ["cairn"]
CMD ["--help"]
