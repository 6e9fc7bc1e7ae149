# syntax=docker/dockerfile:1
# Builds everything from source with the official Rust image; what runs has no shell, no package manager and no root.
#
#   docker build --target dossier -t dossier .
#   docker build --target threat-api -t dossier-threat-api .

FROM rust:1.95-bookworm AS build
RUN rustup target add wasm32-unknown-unknown
WORKDIR /src
COPY . .
# target/ is a cache of the builder, so what is wanted of it is copied out in the same step.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package dossier --package threat-api \
 && cargo run --release --locked --package xtask -- plugins \
 && mkdir -p /out/bin /out/state /out/plugins \
 && cp target/release/dossier target/release/threat-api /out/bin/ \
 && cp target/plugins/*.wasm /out/plugins/

FROM gcr.io/distroless/cc-debian12:nonroot AS threat-api
COPY --from=build /out/bin/threat-api /usr/local/bin/threat-api
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/threat-api"]
CMD ["--listen", "0.0.0.0:8080"]

FROM gcr.io/distroless/cc-debian12:nonroot AS dossier
COPY --from=build /out/bin/dossier /usr/local/bin/dossier
# Owned by the user that runs, so that volumes mounted here are too: compiled plugins, and plugins that you add.
COPY --from=build --chown=nonroot:nonroot /out/state /var/lib/dossier/state
COPY --from=build --chown=nonroot:nonroot /out/plugins /var/lib/dossier/plugins
COPY examples/compose/dossier.toml /etc/dossier/dossier.toml
COPY examples/demo/*.csv examples/demo/*.tsv examples/demo/*.txt /etc/dossier/tables/
ENV DOSSIER_CONFIG=/etc/dossier/dossier.toml
WORKDIR /var/lib/dossier
EXPOSE 9464
ENTRYPOINT ["/usr/local/bin/dossier"]
CMD ["run"]
