"""Asks a server by the openai client: completions, a dialogue as it comes, vectors, and what it refuses.

    pip install openai==3.57.0
    apps serve writer=runs/instruction-tuning wordnet-bert-nano --port 8080 &
    python openai_client.py --writer writer --embedder wordnet-bert-nano

Python 3.11. The writer is a decoder with a chat template. Exits 1, with the reason, if an answer is not what the client's types
say, if a streamed text is not the whole one, or if an error is not the client's own.
"""

import argparse
import math

import openai


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", default="http://127.0.0.1:8080/v1")
    parser.add_argument("--token", default="none", help="the client wants one, even where the server does not")
    parser.add_argument("--writer")
    parser.add_argument("--embedder")
    args = parser.parse_args()
    client = openai.OpenAI(base_url=args.url, api_key=args.token, max_retries=0)
    names = [model.id for model in client.models.list()]
    print("models:", ", ".join(names))
    if args.writer:
        completions(client, args.writer)
        chat(client, args.writer)
    if args.embedder:
        embeddings(client, args.embedder)
    refusals(client, names[0])


def completions(client, model):
    asked = {"model": model, "prompt": "a small bird", "max_tokens": 12, "temperature": 0.8, "top_p": 0.9, "seed": 7}
    whole = client.completions.create(**asked)
    choice = whole.choices[0]
    assert choice.finish_reason in ("stop", "length"), choice
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens, whole.usage
    pieces = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert pieces[-1].usage == whole.usage, pieces[-1]
    text = "".join(piece.choices[0].text for piece in pieces[:-1])
    assert text == choice.text, (text, choice.text)
    print("completion:", repr(text), f"in {len(pieces)} pieces")


def chat(client, model):
    messages = [{"role": "user", "content": "what is a wren?"}]
    asked = {"model": model, "messages": messages, "max_tokens": 16, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    message = whole.choices[0].message
    assert message.role == "assistant", message
    pieces = list(client.chat.completions.create(**asked, stream=True))
    assert pieces[0].choices[0].delta.role == "assistant", pieces[0]
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
    assert text == message.content, (text, message.content)
    assert pieces[-1].choices[0].finish_reason == whole.choices[0].finish_reason, pieces[-1]
    print("chat:", repr(text), f"in {len(pieces)} pieces")


def embeddings(client, model):
    texts = ["a wren", "a small bird", "a tool made of iron"]
    # The client asks for base64 where nothing is said, and unpacks it.
    packed = client.embeddings.create(model=model, input=texts)
    plain = client.embeddings.create(model=model, input=texts, encoding_format="float")
    for one, other in zip(packed.data, plain.data, strict=True):
        assert max(abs(a - b) for a, b in zip(one.embedding, other.embedding, strict=True)) < 1e-6
        assert abs(math.hypot(*one.embedding) - 1) < 1e-5
    assert [one.index for one in plain.data] == [0, 1, 2] and plain.usage.prompt_tokens > 0, plain.usage
    print("embeddings:", len(plain.data), "of width", len(plain.data[0].embedding))


def refusals(client, model):
    for kind, ask in [
        (openai.NotFoundError, lambda: client.completions.create(model="no-such-model", prompt="a")),
        (openai.UnprocessableEntityError, lambda: client.embeddings.create(model=model, input=[])),
    ]:
        try:
            ask()
        except kind as error:
            assert error.body["message"], error
            continue
        raise AssertionError(f"no {kind.__name__}")
    print("refusals: as the client knows them")


if __name__ == "__main__":
    main()
