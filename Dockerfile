# `backlog-bridge serve` as an image:
#
#     docker build --tag backlog-bridge .
#     docker run --publish 8080:8080 --env WEBHOOK_TOKEN --env BACKLOG_USERNAME --env BACKLOG_PASSWORD \
#       --volume "$PWD/routes.toml:/etc/backlog-bridge/routes.toml:ro" --volume store:/var/lib/backlog-bridge backlog-bridge
FROM rust:1.95-bookworm AS build
WORKDIR /source
COPY . .
RUN cargo install --locked --path . --bin backlog-bridge --root /built && mkdir /store

# glibc and the certificates of public authorities, and nothing to log in to.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /built/bin/backlog-bridge /usr/local/bin/backlog-bridge
COPY --from=build --chown=nonroot:nonroot /store /var/lib/backlog-bridge
VOLUME /var/lib/backlog-bridge
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/backlog-bridge"]
CMD ["serve", "--listen", "0.0.0.0:8080", "--routes", "/etc/backlog-bridge/routes.toml", "--store", "/var/lib/backlog-bridge"]
