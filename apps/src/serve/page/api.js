// The server. In: paths and bodies. Out: its answers, or an error whose message is a sentence for a person.

const KEY = "hearth-token";
const UNREACHED = "The server does not answer. Is it still running?";

export class ServerError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

let asking;

// Asks once, however many requests wait for the token.
function askToken(isWrong) {
  asking ??= new Promise((resolve, reject) => {
    const dialog = document.getElementById("token");
    const input = document.getElementById("token-value");
    const why = document.getElementById("token-why");
    if (isWrong) why.textContent = "The server does not know that token. It was set where the server was started.";
    why.classList.toggle("problem", isWrong);
    input.value = "";
    dialog.returnValue = "no";
    dialog.addEventListener("close", () => {
      asking = undefined;
      if (dialog.returnValue !== "use") return reject(new ServerError("The server needs a token. Reload the page to give it.", 401));
      sessionStorage.setItem(KEY, input.value.trim());
      resolve();
    }, { once: true });
    dialog.showModal();
    input.focus();
  });
  return asking;
}

async function reason(answer) {
  try {
    const { error } = await answer.json();
    if (error?.message) return error.message;
  } catch {
    // Something between the page and the server answered; the status has to do.
  }
  const known = { 404: "The server does not have this.", 413: "That is larger than the server takes.", 429: "The server is busy. Try again in a moment.",
    503: "The server is not ready. Try again in a moment." };
  return known[answer.status] ?? `The server answered ${answer.status} ${answer.statusText}`.trim() + ".";
}

async function request(path, body, signal) {
  for (;;) {
    const token = sessionStorage.getItem(KEY);
    const headers = {};
    if (token) headers.Authorization = `Bearer ${token}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const method = body === undefined ? "GET" : "POST";
    let answer;
    try {
      answer = await fetch(path, { method, headers, body: body && JSON.stringify(body), signal, cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ServerError(UNREACHED, 0);
    }
    if (answer.ok) return answer;
    if (answer.status !== 401) throw new ServerError(await reason(answer), answer.status);
    // Another request may have been given a token while this one was on its way.
    if (sessionStorage.getItem(KEY) === token) await askToken(token !== null);
  }
}

async function json(answer) {
  try {
    return await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server's answer was cut short.", 0);
  }
}

export const get = async (path, signal) => json(await request(path, undefined, signal));

export const post = async (path, body, signal) => json(await request(path, body, signal));

// Server-sent events: calls onchunk with each until the server says that it is done.
export async function stream(path, body, signal, onchunk) {
  const answer = await request(path, { ...body, stream: true, stream_options: { include_usage: true } }, signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await next(reader);
    if (done) throw new ServerError("The stream ended before its end.", 0);
    const events = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart()).join("\n");
      if (data === "[DONE]") return;
      if (!data) continue;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ServerError(chunk.error.message, 0);
      onchunk(chunk);
    }
  }
}

async function next(reader) {
  try {
    return await reader.read();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError(UNREACHED, 0);
  }
}
