# syntax=docker/dockerfile:1
# One image for api, worker and migrate. CPU by default; for NVIDIA GPUs: --build-arg TORCH=cuda
FROM python:3.12.12-slim-bookworm AS build
ARG TORCH=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/azimuth
COPY requirements.lock pyproject.toml README.md LICENSE ./
# torch comes first and alone, so that a change of code does not fetch it again. PyPI's build carries CUDA; the CPU build,
# a tenth of its size, is on an index of its own.
RUN version="$(sed -n 's/^torch==//p' requirements.lock)" \
 && case "${TORCH}" in \
      cpu) /opt/azimuth/bin/pip install "torch==${version}" --index-url https://download.pytorch.org/whl/cpu ;; \
      cuda) /opt/azimuth/bin/pip install "torch==${version}" ;; \
      *) echo "TORCH is cpu or cuda, not ${TORCH}" >&2; exit 1 ;; \
    esac
COPY service service
COPY clients/python clients/python
COPY migrations migrations
# Optional parts, such as multilingual,files.
ARG EXTRAS=
RUN /opt/azimuth/bin/pip install --constraint requirements.lock ".${EXTRAS:+[${EXTRAS}]}"

FROM python:3.12.12-slim-bookworm
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/azimuth azimuth \
 && mkdir -p /var/lib/azimuth/data /var/lib/azimuth/models \
 && chown -R azimuth:azimuth /var/lib/azimuth
COPY --from=build /opt/azimuth /opt/azimuth
ENV PATH=/opt/azimuth/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/var/lib/azimuth/models \
    AZIMUTH_DATA_DIR=/var/lib/azimuth/data \
    AZIMUTH_HOST=0.0.0.0 \
    AZIMUTH_PORT=8000
# By number, so that Kubernetes can see that it is not root.
USER 10001:10001
WORKDIR /var/lib/azimuth
# data: lexical indexes. models: what was fetched from a model hub.
VOLUME ["/var/lib/azimuth/data", "/var/lib/azimuth/models"]
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, ssl; from urllib.request import urlopen; scheme = 'https' if os.environ.get('AZIMUTH_TLS_CERTIFICATE') else 'http'; urlopen(f\"{scheme}://127.0.0.1:{os.environ['AZIMUTH_PORT']}/livez\", timeout=2, context=ssl._create_unverified_context())"]
ENTRYPOINT ["azimuth"]
CMD ["serve"]
