"""A classifier of texts behind FastAPI and transformers, as people write it: what `apps serve` is held against.

    pip install fastapi==0.165.0 uvicorn==0.54.0 torch==2.15.0 transformers==5.23.0
    python benches/serve/fastapi_server.py DIR --port 8081

DIR is a Hugging Face directory, the one that `apps serve` is given. A request is a forward pass; FastAPI runs the endpoint, which
is no coroutine, on its threads. --threads is what torch computes with, all cores without it. It takes and gives what `/v1/predict`
does, for one text.
"""

import argparse

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer


class Request(BaseModel):
    inputs: str
    top: int = 5


def app(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    several = model.config.problem_type == "multi_label_classification"
    length = min(tokenizer.model_max_length, model.config.max_position_embeddings)
    api = FastAPI()

    @api.get("/healthz")
    def health():
        return {"status": "ok"}

    @api.post("/v1/predict")
    def predict(request: Request):
        tokens = tokenizer(request.inputs, truncation=True, max_length=length, return_tensors="pt")
        with torch.inference_mode():
            logits = model(**tokens).logits[0]
        probabilities = logits.sigmoid() if several else logits.softmax(0)
        best = probabilities.topk(min(request.top, len(probabilities)))
        classes = [
            {"name": model.config.id2label[index], "probability": value}
            for value, index in zip(best.values.tolist(), best.indices.tolist())
        ]
        return {"predictions": [{"classes": classes}]}

    return api


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--port", type=int, default=8081)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    uvicorn.run(app(args.folder), host="127.0.0.1", port=args.port, log_level="warning")


if __name__ == "__main__":
    main()
