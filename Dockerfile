# The daemon as a user of its own, without torch. docs/deploying.md says how to run it, and its size.
#
#   docker build -t cachesvc .
#   docker build -t cachesvc-worker --build-arg EXTRAS=torch .    # images that run the client too
FROM docker.io/library/python:3.11-slim-bookworm AS build
# Another package index and its certificates, for hosts that cannot reach pypi.org.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_CERT
# torch is larger than everything else together, and the daemon never imports it.
ARG EXTRAS=""
WORKDIR /src
COPY pyproject.toml requirements.lock constraints.txt README.md LICENSE ./
RUN python -m venv /opt/cachesvc \
 && /opt/cachesvc/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY cachesvc cachesvc
COPY client client
# The commit, which `make image` passes: the image is built without git's folder.
ARG REVISION=""
RUN SOURCE_REVISION="$REVISION" /opt/cachesvc/bin/pip install --no-cache-dir --no-deps ./client . \
 && if [ -n "$EXTRAS" ]; then \
      /opt/cachesvc/bin/pip install --no-cache-dir -c constraints.txt ".[$EXTRAS]"; fi \
 && /opt/cachesvc/bin/pip uninstall --yes setuptools pip \
 && /opt/cachesvc/bin/cachesvc version

FROM docker.io/library/python:3.11-slim-bookworm
ARG REVISION=""
LABEL org.opencontainers.image.title="cachesvc" \
      org.opencontainers.image.description="Serves prepared tensors from memory, NVMe and S3" \
      org.opencontainers.image.revision="${REVISION}"
# Fixed ids, because volumes and workers name them: a worker that maps files is in this group.
RUN groupadd --gid 8002 cachesvc \
 && useradd --uid 8002 --gid 8002 --no-create-home --shell /usr/sbin/nologin cachesvc \
 && install -d -o cachesvc -g cachesvc -m 0700 /var/lib/cachesvc \
 && install -d -o cachesvc -g cachesvc -m 0750 /opt/dlami/nvme/vton-cache
COPY --from=build /opt/cachesvc /opt/cachesvc
ENV PATH=/opt/cachesvc/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 8002:8002
# The catalog and L2. The third directory, /dev/shm/cachesvc, is memory: --shm-size or a tmpfs volume.
VOLUME ["/var/lib/cachesvc", "/opt/dlami/nvme/vton-cache"]
# Each check starts a process that imports grpc, so the interval is long. It fails during a drain.
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 \
  CMD ["cachesvc", "health", "--ready", "--timeout", "4"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["cachesvc"]
CMD ["serve"]
