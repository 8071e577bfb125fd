# A server of models:  docker build -t berg .  &&  docker run --rm -p 127.0.0.1:8000:8000 berg
# Files of models, read-only:  -v /data/berg:/data/berg:ro   A token of one's own:  -e BERG_SERVER_TOKEN=...
FROM python:3.12-slim

RUN useradd --create-home berg
WORKDIR /opt/berg
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY berg ./berg
RUN pip install --no-cache-dir --constraint constraints.txt ".[server,plot,video,sound]" \
    && cd / && rm -rf /opt/berg/berg

USER berg
WORKDIR /home/berg
ENV BERG_DIR=/data/berg/brain-encoding-response-generator BERG_OFFLINE=1
EXPOSE 8000
CMD ["berg", "serve", "--host", "0.0.0.0", "--port", "8000"]
