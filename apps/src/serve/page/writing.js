// Goes on with a text. In: a prompt. Out: the text as the model writes it, token after token.

import * as api from "./api.js";
import { Missing, bench, numberInput, numberOf, options } from "./bench.js";
import { el, field } from "./dom.js";
import * as place from "./place.js";

// The fields of sampling, and what they hold as the server wants it.
export function sampling() {
  const most = numberInput(128, { min: 1, max: 100000, step: 1 });
  const temperature = numberInput(0.8, { min: 0, max: 2, step: 0.1 });
  const nucleus = numberInput(0.95, { min: 0, max: 1, step: 0.05 });
  const seed = numberInput("", { min: 0, step: 1, placeholder: "any" });
  const fields = [field("Tokens at most", most), field("Temperature", temperature, "0 takes the likeliest token each time."),
    field("Top p", nucleus), field("Seed", seed)];
  const read = () => ({
    max_tokens: numberOf(most, "The number of tokens"), temperature: numberOf(temperature, "The temperature"),
    top_p: numberOf(nucleus, "Top p"), seed: numberOf(seed, "The seed"),
  });
  return { fields: options(...fields), read };
}

const ENDS = { stop: "The text came to its end.", length: "It stopped at the most tokens that were asked for, or that the model takes." };

// Tokens, speed and why it ended, in a sentence.
export function account({ usage, reason, since, isStopped }) {
  const seconds = (performance.now() - since) / 1000;
  const tokens = usage?.completion_tokens;
  const speed = tokens ? `${tokens} tokens in ${seconds.toFixed(1)} s, ${Math.round(tokens / Math.max(seconds, 0.001))} a second. ` : "";
  return speed + (isStopped ? "Stopped." : ENDS[reason] ?? "");
}

// Streams into a node; says what it wrote and how it went. What was written stays where it is stopped.
export async function write(path, body, signal, onpiece) {
  const since = performance.now();
  let usage;
  let reason;
  try {
    await api.stream(path, body, signal, (chunk) => {
      usage = chunk.usage ?? usage;
      const choice = chunk.choices?.[0];
      reason = choice?.finish_reason ?? reason;
      const piece = choice?.text ?? choice?.delta?.content;
      if (piece) onpiece(piece);
    });
  } catch (error) {
    if (error.name !== "AbortError") throw error;
    return account({ since, isStopped: true });
  }
  return account({ usage, reason, since });
}

export function complete(model) {
  const area = el("textarea", { rows: 5, dir: "auto", placeholder: "The start of a text", oninput: () => place.write({ prompt: area.value }) });
  area.value = place.get("prompt");
  const { fields, read } = sampling();
  const work = async (output, signal) => {
    if (!area.value) throw new Missing("The start of a text is missing.", area);
    const body = { model: model.id, prompt: area.value, ...read() };
    const written = el("span", { class: "written" });
    const text = el("p", { class: "prose streaming", dir: "auto" }, el("span", { class: "prompt" }, area.value), written);
    const below = el("p", { class: "hint" }, "Writing…");
    output.replaceChildren(text, below);
    try {
      below.textContent = await write("/v1/completions", body, signal, (piece) => written.append(piece));
    } finally {
      text.classList.remove("streaming");
    }
    return `${written.textContent}. ${below.textContent}`;
  };
  return bench({ fields: [field("Text to go on with", area)], button: "Write", canStop: true, work, empty: "The text appears here as it is written.", options: [fields] }).node;
}
