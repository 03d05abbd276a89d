# Builds the programs and ends in an image with nothing else, for
#   COPY --from=tombolo /tombolo-init /tombolo-init
# in an enclave's Dockerfile (see docs/boot.md). Any Debian 12 with the Swift 6.3 toolchain can be the builder.
ARG BUILDER=docker.io/library/swift:6.3-bookworm
FROM ${BUILDER} AS build
WORKDIR /src
COPY rootfs/setup rootfs/ld rootfs/no-unwinding.ld rootfs/
RUN rootfs/setup --build
# Tests too: Package.swift names their folders, and SwiftPM loads nothing where one of them is missing.
COPY Package.swift ./
COPY Sources Sources
COPY Tests Tests
RUN swift build -c release --product tombolo-init && swift build -c release --product tombolo && \
  swift build -c release --product tombolo-dns && swift build -c release --product tombolo-attest && \
  install -D -t /product .build/release/tombolo-init .build/release/tombolo .build/release/tombolo-dns \
    .build/release/tombolo-attest

FROM scratch
COPY --from=build /product/ /
ENTRYPOINT ["/tombolo-init"]
