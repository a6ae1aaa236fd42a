# syntax=docker/dockerfile:1
# Built in one image, run in another that holds the binary and little else.

FROM rust:1-bookworm AS build
WORKDIR /src
COPY .cargo ./.cargo
COPY Cargo.toml Cargo.lock ./
COPY benches ./benches
COPY clients/rust ./clients/rust
COPY docs/openapi.yaml ./docs/openapi.yaml
COPY src ./src
COPY tests ./tests
RUN cargo build --release --locked --bin small-resource-server \
    && strip target/release/small-resource-server \
    && mkdir -p /empty/data

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/small-resource-server /usr/local/bin/small-resource-server
# The embedded store's place, for when nothing else is configured: mount a volume to keep it. The default of
# SQLITE_PATH, data/resources.db, leads there from /; as a variable it would win over a mounted conf file.
COPY --from=build --chown=nonroot:nonroot /empty/data /data
WORKDIR /
VOLUME ["/data"]
EXPOSE 9501
USER nonroot
# The conf file is read from /etc/small-swoole-resource-server.conf when it is mounted there.
HEALTHCHECK --interval=10s --timeout=4s --start-period=5s --retries=3 \
    CMD ["/usr/local/bin/small-resource-server", "healthcheck"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/small-resource-server"]
