# nelbo in a container, for a CPU or a GPU:
#   docker build -t nelbo .
#   docker build -t nelbo --build-arg TORCH_INDEX=https://pypi.org/simple .    # PyPI has the CUDA build
#   docker run --gpus all --shm-size=2g -v "$PWD/outputs:/nelbo/outputs" nelbo train.py schedule=cosine loss=vlb
FROM python:3.11-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

WORKDIR /nelbo
COPY constraints.txt pyproject.toml README.md LICENSE ./
# torch first: a layer of gigabytes that code does not change
# a build with a tag, such as +cpu, is preferred to the same version without
RUN pip install --no-cache-dir -c constraints.txt --extra-index-url "$TORCH_INDEX" torch torchvision
COPY src src
RUN pip install --no-cache-dir -c constraints.txt -e .
COPY conf conf
COPY train.py evaluate.py sample.py ./

# runs, data and caches of whoever runs it
ENV NELBO_DATA=/data NELBO_CACHE=/nelbo/outputs/cache
ENTRYPOINT ["python"]
CMD ["train.py", "--help"]
