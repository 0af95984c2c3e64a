# The service alone, on CPU: no Envoy, no Redis, no Triton, no compiler.
FROM python:3.12-slim AS build
WORKDIR /src
RUN python -m venv /opt/extproc
COPY requirements/cpu.txt requirements/cpu.txt
RUN /opt/extproc/bin/pip install --no-cache-dir --require-hashes -r requirements/cpu.txt
COPY pyproject.toml README.md LICENSE ./
COPY protos protos
COPY extproc extproc
RUN /opt/extproc/bin/pip install --no-cache-dir --no-deps .

FROM python:3.12-slim
RUN useradd --system --uid 10001 --no-create-home extproc
COPY --from=build /opt/extproc /opt/extproc
ENV PATH=/opt/extproc/bin:$PATH
USER extproc
# gRPC is wherever gateway.yaml says; this is the admin interface.
EXPOSE 9002
ENTRYPOINT ["extproc"]
CMD ["serve", "--config", "/etc/extproc/gateway.yaml"]
