# syntax=docker/dockerfile:1
# The daemon without torch, as a user of its own.
#
#   docker build -t cachesvc .
#   docker run --shm-size=2g -v /opt/dlami/nvme/vton-cache:/opt/dlami/nvme/vton-cache \
#     -v cachesvc-state:/var/lib/cachesvc -v /dev/shm/cachesvc:/dev/shm/cachesvc \
#     -e CACHESVC_ORIGIN__BUCKET=my-bucket cachesvc
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml README.md ./
COPY cachesvc cachesvc
COPY client client
RUN python -m venv /opt/cachesvc && /opt/cachesvc/bin/pip install --no-cache-dir .

FROM python:3.11-slim
# Workers that share files with the daemon run with this group.
RUN groupadd --gid 8002 cachesvc && useradd --uid 8002 --gid 8002 --no-create-home cachesvc \
 && install -d -o cachesvc -g cachesvc -m 0700 /var/lib/cachesvc \
 && install -d -o cachesvc -g cachesvc -m 0750 /opt/dlami/nvme/vton-cache
COPY --from=build /opt/cachesvc /opt/cachesvc
ENV PATH=/opt/cachesvc/bin:$PATH PYTHONUNBUFFERED=1
USER 8002:8002
VOLUME ["/var/lib/cachesvc", "/opt/dlami/nvme/vton-cache"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["cachesvc"]
CMD ["serve"]
