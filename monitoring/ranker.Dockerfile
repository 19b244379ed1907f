# The reference service for compose.yaml. Elsewhere `make bento` and `bentoml containerize` make the image of a Bento.
FROM python:3.11.11-slim-bookworm

WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY plugins plugins
RUN pip install --no-cache-dir --constraint constraints.txt .
COPY service service

RUN useradd --create-home ranker && install --directory --owner ranker /var/lib/riverdelta
USER ranker
# Kernels are compiled where they are first imported: here once, and not at each start.
RUN python -c "import riverdelta.sidecar.trainer"
ENV BENTOML_DO_NOT_TRACK=True PYTHONUNBUFFERED=1
EXPOSE 3000 3001
CMD ["bentoml", "serve", "service.service:Ranker", "--host", "0.0.0.0", "--port", "3000"]
