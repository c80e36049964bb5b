# One image for every role: `resegment run --roles ...`, `resegment topics ...`, `resegment produce ...`.
# All packages install from wheels by hash; the first stage has a compiler for our own kernels (stream/kernels), the second
# has none. Python's version is the one that CI tests.
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/resegment
ENV PATH=/opt/resegment/bin:$PATH
WORKDIR /src
# The locked packages first: they change less often than the code, and this layer is the slow one.
COPY requirements.lock ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip install --only-binary :all: --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md ./
COPY schemas ./schemas
COPY producers ./producers
COPY stream ./stream
# An image without the kernels would cost four times the cores: then it is not built.
RUN python -m pip install --no-deps --no-build-isolation --no-cache-dir . \
    && cd / && python -c "from stream import kernels; assert kernels.on()" \
    && python -m pip uninstall --yes cython setuptools pip

FROM python:${PYTHON_VERSION}-slim
LABEL org.opencontainers.image.title="resegment" \
      org.opencontainers.image.description="A streaming event processor that moves people between segments as they behave." \
      org.opencontainers.image.licenses="Apache-2.0"
# /data is for the embedded transport; with Kafka nothing is written outside /tmp.
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin resegment \
    && install --directory --owner resegment --group resegment /data
COPY --from=build /opt/resegment /opt/resegment
ENV PATH=/opt/resegment/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONFAULTHANDLER=1 \
    PYTHONUNBUFFERED=1 \
    RESEGMENT_METRICS__HOST=0.0.0.0
USER 10001:10001
WORKDIR /data
EXPOSE 9464
STOPSIGNAL SIGTERM
# Liveness: a loop that is stuck. A broker that is away makes a container not ready, never unhealthy.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-m", "stream.runtime.probe"]
ENTRYPOINT ["resegment"]
CMD ["run"]
