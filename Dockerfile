# The external processor as an image: no Envoy, no Redis, no Triton, no compiler, no pip.
#
#   docker build -t extproc .                              CPU
#   docker build -t extproc:cuda --build-arg RUNTIME=gpu . CUDA 13, with the libraries it needs
#
# It runs on a root file system that is read-only, as any user; only /tmp has to be writable, and what the configuration
# names: the ledger's spool, the audit log, the Unix socket. docs/deploy.md

ARG PYTHON=python:3.12.12-slim-bookworm

# Everything that only building takes, and what it makes: the wheel, and the models that policies share.
FROM ${PYTHON} AS build
WORKDIR /src
RUN python -m venv /opt/build
COPY requirements requirements
RUN --mount=type=cache,target=/root/.cache/pip /opt/build/bin/pip install --no-compile --require-hashes -r requirements/image.txt
COPY pyproject.toml README.md LICENSE ./
COPY protos protos
COPY extproc extproc
COPY triton_models/templates triton_models/templates
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /opt/wheels .
RUN /opt/build/bin/pip install --no-deps --no-index /opt/wheels/*.whl
RUN --mount=type=cache,target=/root/.cache/pip EXTPROC_HOME=/opt/models /opt/build/bin/extproc models build

# What runs, without the pip that put it there.
FROM ${PYTHON} AS runtime
ARG RUNTIME=cpu
WORKDIR /src
COPY requirements requirements
COPY --from=build /opt/wheels /opt/wheels
RUN python -m venv --without-pip /opt/extproc
RUN --mount=type=cache,target=/root/.cache/pip pip --python /opt/extproc/bin/python install --require-hashes -r requirements/${RUNTIME}.txt
RUN pip --python /opt/extproc/bin/python install --no-deps --no-index /opt/wheels/*.whl

FROM ${PYTHON}
COPY --from=build /opt/models /opt/models
COPY --from=runtime /opt/extproc /opt/extproc
# The NVIDIA variables tell its container runtime to lend the driver; without it they mean nothing.
ENV PATH=/opt/extproc/bin:$PATH \
    EXTPROC_HOME=/opt/models \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
# gRPC is wherever gateway.yaml says; this is the admin interface.
EXPOSE 9002
# Begins to drain; Docker kills after ten seconds unless told otherwise (--stop-timeout, above service.drain_timeout_s).
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["extproc", "health"]
ENTRYPOINT ["extproc"]
CMD ["serve", "--config", "/etc/extproc/gateway.yaml"]
