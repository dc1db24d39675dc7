# The worker and every dgdm command. Not Alpine: Numba has no wheels for musl.

FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/dgdm
WORKDIR /src
# Dependencies in a layer of their own: a change of the code does not fetch them again.
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > wanted.txt \
 && /opt/dgdm/bin/pip install -c constraints.txt -r wanted.txt
COPY . .
RUN /opt/dgdm/bin/pip install --no-deps .

FROM python:3.11-slim
RUN useradd --system --uid 10001 --create-home dgdm \
 && install -d -o dgdm -g dgdm /data /var/cache/dgdm
COPY --from=build /opt/dgdm /opt/dgdm
ENV PATH=/opt/dgdm/bin:$PATH PYTHONUNBUFFERED=1 NUMBA_CACHE_DIR=/var/cache/dgdm/numba
USER dgdm
# Kernels compiled here are used on the same kind of CPU; on another one the first start compiles them again.
RUN dgdm warm-up
# Without addresses the embedded log and store are in .dgdm/ in here: mount a volume to keep them.
WORKDIR /data
HEALTHCHECK --interval=10s --timeout=10s --start-period=120s --retries=3 CMD ["dgdm", "doctor", "--ready"]
ENTRYPOINT ["dgdm"]
CMD ["worker"]
