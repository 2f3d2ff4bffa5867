# The image of every recstore service: `docker build .`, with `--build-arg LIBRARIES=gpu` for training on a GPU.

FROM python:3.13-slim-trixie AS base
# implicit's wheel wants OpenMP from the system; every other wheel brings its libraries along
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
ENV PATH=/opt/recstore/bin:$PATH PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

FROM base AS build
# requirements/worker.txt, or gpu.txt: the same and the CUDA libraries, which then need only the host's driver
ARG LIBRARIES=worker
RUN python -m venv /opt/recstore
WORKDIR /build
COPY requirements/${LIBRARIES}.txt requirements/
RUN pip install --require-hashes -r requirements/${LIBRARIES}.txt
COPY pyproject.toml README.md LICENSE ./
COPY recstore recstore
COPY migrations migrations
COPY worker worker
# setuptools and wheel are locked too, hence no download here
RUN pip install --no-deps --no-build-isolation .

FROM base
LABEL org.opencontainers.image.title="recstore" \
      org.opencontainers.image.description="Recommendations that live in the application's own Postgres" \
      org.opencontainers.image.licenses="MIT"
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin recstore
COPY --from=build /opt/recstore /opt/recstore
USER 10001:10001
# the only place where anything is written; not the sources' folder, which would hide the installed package
WORKDIR /tmp
CMD ["recstore", "--help"]
