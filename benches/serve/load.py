"""Asks a server for predictions from many clients at once, checks every answer, and prints speed, errors and memory.

    apps predict DIR texts.txt --json --output reference.jsonl
    apps serve model=DIR --port 8080 &
    python benches/serve/load.py texts.txt reference.jsonl --clients 200 --seconds 60 --pid $!

and the same against `fastapi_server.py DIR --port 8081`, one server after the other, on the same cores. A client asks for one text
at a time and for the next one once it is answered. A 429 is counted apart: the server has said to come again, which the client does
after the seconds of Retry-After, or 50 ms with --hasty. Latency is from the first byte sent to the last byte read.

Standard library alone. A line a server, and with --json an object; the exit code is 1 where an answer was wrong or another error
than 429 occurred.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter

# f32 sums of another batch, in another order.
TOLERANCE = 1e-4


def rows(path):
    with open(path, encoding="utf-8") as file:
        return [line.rstrip("\n") for line in file if line.strip()]


def probabilities(prediction):
    """Of each class."""
    return {one["name"]: one.get("probability", one.get("value")) for one in prediction["classes"]}


def equal(one, other):
    one, other = probabilities(one), probabilities(other)
    return one.keys() == other.keys() and all(abs(one[name] - other[name]) < TOLERANCE for name in one)


def resident(pid):
    """MiB of a process and of its children."""
    total = 0
    for one in [pid, *children(pid)]:
        try:
            with open(f"/proc/{one}/status", encoding="ascii") as file:
                total += sum(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
        except OSError:
            pass
    return total / 1024


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            direct = [int(one) for one in file.read().split()]
    except OSError:
        return []
    return direct + [below for one in direct for below in children(one)]


class Client:
    """A connection that is kept."""

    def __init__(self, args):
        self.args, self.streams = args, None

    async def ask(self, body):
        """Status, headers and body of an answer."""
        if self.streams is None:
            self.streams = await asyncio.open_connection(self.args.host, self.args.port)
        reader, writer = self.streams
        token = f"Authorization: Bearer {self.args.token}\r\n" if self.args.token else ""
        head = (
            f"POST {self.args.path} HTTP/1.1\r\nHost: {self.args.host}\r\nContent-Type: application/json\r\n"
            f"{token}Content-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
        answer = await reader.readexactly(int(headers["content-length"]))
        if headers.get("connection") == "close":
            self.close()
        return int(lines[0].split()[1]), headers, answer

    def close(self):
        if self.streams is not None:
            self.streams[1].close()
            self.streams = None


async def client(number, args, texts, reference, until, found):
    connection, at = Client(args), number * 7919
    while time.monotonic() < until:
        at = (at + 1) % len(texts)
        body = json.dumps({"inputs": texts[at], "top": args.top}).encode()
        began = time.monotonic()
        try:
            status, headers, answer = await connection.ask(body)
        except (OSError, asyncio.IncompleteReadError, KeyError) as error:
            found["statuses"][type(error).__name__] += 1
            connection.close()
            await asyncio.sleep(0.05)
            continue
        took = time.monotonic() - began
        found["statuses"][status] += 1
        if status == 200:
            found["seconds"].append(took)
            found["wrong"] += not equal(json.loads(answer)["predictions"][0], reference[at])
        elif status == 429:
            await asyncio.sleep(0.05 if args.hasty else float(headers.get("retry-after", 1)))
    connection.close()


async def watch(pid, until, found):
    while pid and time.monotonic() < until:
        found["memory"].append(resident(pid))
        await asyncio.sleep(1)


async def measure(args, texts, reference, seconds):
    found = {"statuses": Counter(), "seconds": [], "wrong": 0, "memory": []}
    until = time.monotonic() + seconds
    clients = (client(number, args, texts, reference, until, found) for number in range(args.clients))
    began = time.monotonic()
    await asyncio.gather(watch(args.pid, until, found), *clients)
    found["took"] = time.monotonic() - began
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("texts", help="a text a line")
    parser.add_argument("reference", help="what `apps predict --json` says of them, a line each")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--path", default="/v1/predict")
    parser.add_argument("--token")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--warm", type=float, default=3, help="seconds before, that do not count")
    parser.add_argument("--top", type=int, default=5, help="as in the reference")
    parser.add_argument("--pid", type=int, help="of the server, whose memory is watched")
    parser.add_argument("--hasty", action="store_true", help="after a 429 come again at once")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    texts = rows(args.texts)
    reference = [json.loads(line) for line in rows(args.reference)]
    assert len(texts) == len(reference), "a line of the reference for each text"

    asyncio.run(measure(args, texts, reference, args.warm))
    found = asyncio.run(measure(args, texts, reference, args.seconds))
    seconds = sorted(found["seconds"])
    quantile = lambda share: 1000 * seconds[min(len(seconds) - 1, int(share * len(seconds)))] if seconds else float("nan")
    memory = found["memory"] or [float("nan")]
    # Of the first and the last tenth, so that a peak of a moment is no growth.
    tenth = max(1, len(memory) // 10)
    mean = lambda some: sum(some) / len(some)
    result = {
        "clients": args.clients, "seconds": round(found["took"], 2), "answers": len(seconds),
        "per_second": round(len(seconds) / found["took"], 1), "p50_ms": round(quantile(0.5), 2),
        "p99_ms": round(quantile(0.99), 2), "wrong": found["wrong"],
        "statuses": {str(key): count for key, count in sorted(found["statuses"].items(), key=str)},
        "mib_begin": round(mean(memory[:tenth]), 1), "mib_end": round(mean(memory[-tenth:]), 1),
        "mib_most": round(max(memory), 1), "mib": [round(one, 1) for one in memory],
    }
    if args.json:
        print(json.dumps(result))
    else:
        print("\n".join(f"{name:<12}{value}" for name, value in result.items() if name != "mib"))
    if found["wrong"] or set(found["statuses"]) - {200, 429}:
        sys.exit(1)


if __name__ == "__main__":
    main()
