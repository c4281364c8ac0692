# The service in an unprivileged container. The CPU build of torch is far smaller than the default one: pass the
# package index of CPU wheels that pytorch.org names as --build-arg TORCH_INDEX_URL=...; for a node of a Ray
# cluster EXTRAS=postgres,tracing,ray.
FROM python:3.11-slim AS build
ARG TORCH_INDEX_URL=""
ARG EXTRAS="postgres,tracing"
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/provenn
ENV PATH=/opt/provenn/bin:$PATH
WORKDIR /src
COPY requirements.lock ./
RUN if [ -n "$TORCH_INDEX_URL" ]; then pip install --index-url "$TORCH_INDEX_URL" -c requirements.lock torch; fi
COPY pyproject.toml setup.py README.md LICENSE ./
COPY provenn provenn
COPY verifier verifier
COPY models models
COPY solvers solvers
COPY api api
# The lock holds the development tools too; as constraints it installs only what runs.
RUN pip install -c requirements.lock ".[$EXTRAS]"

FROM python:3.11-slim
# libseccomp2: the sandbox's filter of system calls
RUN apt-get update && apt-get install --yes --no-install-recommends libseccomp2 && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --user-group --create-home provenn \
    && install --directory --owner=provenn --group=provenn --mode=0750 /data
COPY --from=build /opt/provenn /opt/provenn
ENV PATH=/opt/provenn/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PROVENN_HOST=0.0.0.0 \
    PROVENN_AUTHENTICATION=keys \
    PROVENN_PORT=8000 \
    PROVENN_DATA_DIR=/data
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=3)"]
ENTRYPOINT ["provenn"]
CMD ["serve"]
