# Training: CUDA's base, Python, the packages of docker/locks/training.txt, and one command.
#
#   docker build -f docker/training.Dockerfile -t viola-training .
#   docker run --gpus all --user "$(id -u):$(id -g)" \
#       -v "$PWD/sounds:/sounds:ro" -v "$PWD/work:/work" viola-training
#
# CUDA's libraries come with torch's packages; the driver comes from the machine. BASE may be any
# Debian or Ubuntu that has Python 3.11 or newer.

ARG BASE=docker.io/nvidia/cuda:13.0.2-base-ubuntu24.04

FROM ${BASE} AS build
ARG LOCK=docker/locks/training.txt
WORKDIR /build
# hadolint ignore=DL3008
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends python3 python3-venv \
    && apt-get clean
COPY docker/locks/image.txt ${LOCK} docker/locks/
RUN python3 -m venv tools \
    && tools/bin/pip install -q --no-cache-dir --require-hashes --only-binary :all: \
        -r docker/locks/image.txt \
    && python3 -m venv --without-pip /opt/viola \
    && tools/bin/pip --python /opt/viola/bin/python install -q --no-cache-dir --require-hashes \
        --only-binary :all: -r "docker/locks/$(basename "${LOCK}")"
COPY pyproject.toml README.md LICENSE ./
COPY viola viola
COPY models models
COPY training training
COPY service service
RUN tools/bin/pip wheel -q --no-cache-dir --no-deps --no-build-isolation --no-index -w wheel . \
    && tools/bin/pip --python /opt/viola/bin/python install -q --no-cache-dir --no-deps \
        --no-index wheel/*.whl \
    && tools/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
        -o /opt/viola/sbom.cdx.json /opt/viola/bin/python
COPY docker/train.py /opt/viola/

FROM ${BASE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Viola, training" \
      org.opencontainers.image.description="Train BYOL-A encoders on a folder of sound" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Compiled networks (run.compile) are built by Triton, which needs a C compiler and Python's headers
# hadolint ignore=DL3008
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends python3 python3-dev gcc libc6-dev \
    && apt-get clean && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/viola /opt/viola
# Whoever runs it has no home here and no name; what libraries keep goes to /tmp
ENV PATH=/opt/viola/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONUTF8=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    USER=viola \
    XDG_CACHE_HOME=/tmp/cache \
    MPLCONFIGDIR=/tmp/matplotlib \
    NUMBA_CACHE_DIR=/tmp/numba
USER 65532:65532
WORKDIR /work
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/viola/bin/python", "/opt/viola/train.py"]
CMD ["default"]
