# The service: Debian's Python, the packages of docker/locks, the default models, and nothing else.
#
#   make image                                                             for a CPU
#   docker build -f docker/service.Dockerfile --build-arg PROVIDER=cuda .  for an NVIDIA GPU (amd64)
#
# The final stage has no shell, no package manager, no compiler, no pip and no torch; it needs no
# network and writes nothing but /tmp, and /data where VIOLA_DATA says so. Everything about the service is set by VIOLA_ variables.

FROM docker.io/library/debian:bookworm-slim AS build
ARG PROVIDER=cpu
WORKDIR /build
# Not pinned to a version: what is installed here is Debian's present security state, and the SBOM
# records it
# hadolint ignore=DL3008
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends python3 python3-venv binutils \
    && apt-get clean
COPY docker/locks/image.txt docker/locks/service-${PROVIDER}.txt docker/locks/
RUN python3 -m venv tools \
    && tools/bin/pip install -q --no-cache-dir --require-hashes --only-binary :all: -r docker/locks/image.txt \
    && python3 -m venv --without-pip /opt/viola \
    && tools/bin/pip --python /opt/viola/bin/python install -q --no-cache-dir --no-compile \
        --require-hashes --only-binary :all: -r docker/locks/service-${PROVIDER}.txt
COPY docker/rootfs.sh docker/prune.sh docker/sbom.py docker/healthcheck.py docker/
RUN docker/rootfs.sh /root-fs
COPY pyproject.toml README.md LICENSE ./
COPY viola viola
COPY models models
COPY training training
COPY service service
RUN tools/bin/pip wheel -q --no-cache-dir --no-deps --no-build-isolation --no-index -w wheel . \
    && tools/bin/pip --python /opt/viola/bin/python install -q --no-cache-dir --no-compile --no-deps \
        --no-index wheel/*.whl \
    && docker/prune.sh /opt/viola/lib/python3.11/site-packages \
    # Of CUDA, ONNX Runtime looks for the libraries in one place
    && mkdir /opt/viola/lib/cuda \
    && find /opt/viola/lib/python3.11/site-packages -path '*/nvidia/*/lib*.so*' \
        -exec ln -s -t /opt/viola/lib/cuda {} + \
    && mkdir -p /root-fs/opt && cp -a /opt/viola /root-fs/opt/ \
    && cp docker/healthcheck.py /root-fs/opt/viola/ \
    # The models that ship are what a mounted folder replaces
    && mv /root-fs/opt/viola/lib/python3.11/site-packages/models/pretrained/* /root-fs/models/ \
    && rmdir /root-fs/opt/viola/lib/python3.11/site-packages/models/pretrained \
    && ln -s /models /root-fs/opt/viola/lib/python3.11/site-packages/models/pretrained \
    # Bytecode now, since nothing can be written later
    && python3 -m compileall -q --invalidation-mode unchecked-hash -s /root-fs -p / \
        /root-fs/usr/lib/python3.11 /root-fs/opt/viola
# What is shipped and under which licences, in /usr/share/viola of the image
RUN tools/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
        -o python.cdx.json /opt/viola/bin/python \
    && tools/bin/python docker/sbom.py python.cdx.json /root-fs \
        /opt/viola/lib/python3.11/site-packages /root-fs/usr/share/viola

FROM scratch
ARG PROVIDER=cpu
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Viola" \
      org.opencontainers.image.description="Sound to vectors and labels over HTTP" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="docker.io/library/debian:bookworm-slim" \
      viola.provider="${PROVIDER}"
COPY --from=build /root-fs /
ENV PATH=/opt/viola/bin:/usr/bin \
    LD_LIBRARY_PATH=/opt/viola/lib/cuda \
    PYTHONUTF8=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    VIOLA_HOST=0.0.0.0
USER 65532:65532
WORKDIR /tmp
EXPOSE 8000
# Seconds for a start on a slow machine; then red within a quarter of a minute
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/usr/bin/python3", "-IS", "/opt/viola/healthcheck.py"]
STOPSIGNAL SIGTERM
# The build fails if the models do not compute their golden vectors in this very image
RUN ["/opt/viola/bin/viola", "serve", "--check"]
ENTRYPOINT ["/opt/viola/bin/viola"]
CMD ["serve"]
