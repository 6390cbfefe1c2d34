# Sentra's workers and command line. Cloud SDKs are extras: build with --build-arg EXTRAS=aws,kubernetes.
FROM python:3.12-slim
ARG EXTRAS=""
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY domain domain
COPY scorers scorers
COPY actuators actuators
COPY store store
COPY streams streams
COPY dashboard dashboard
COPY sentra sentra
RUN pip install --no-cache-dir --constraint constraints.txt ".${EXTRAS:+[${EXTRAS}]}" \
 && useradd --create-home sentra && install -d -o sentra /srv/sentra
USER sentra
# The judge's kernels are compiled once, here, and not at the first tick of every new container.
RUN python -c 'from scorers.evidence.warm import warm_up; warm_up()'
WORKDIR /srv/sentra
ENTRYPOINT ["sentra"]
