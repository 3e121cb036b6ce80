// Tries the page of `apps serve` in headless Chromium: each claim on each model that can do it, at 1280 and 390 pixels, light and dark.
//
//     npm install --no-save playwright-core axe-core     (in the folder it is run from; Chromium as the system has it, or in $CHROMIUM)
//     apps serve wordnet-bert-nano ... --runs runs &
//     node tests/interop/page.mjs http://127.0.0.1:8080 OUT_DIR
//
// What is served is tried, and what is missing is said: a text classified, a mask filled, a text generated as it streams, a talk, a
// digit dropped and recognised, texts compared, a run watched while it grows. In each state axe-core may find nothing serious, nothing
// may be wider than the window, and the console stays empty. Screenshots go to OUT_DIR. A token is read from $HEARTH_TOKEN.
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";
import zlib from "node:zlib";

const require = createRequire(path.join(process.cwd(), "x"));
const { chromium } = require("playwright-core");
const axe = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const mnist = fileURLToPath(new URL("../../assets/data/mnist", import.meta.url));

const [server, out] = process.argv.slice(2);
if (!out) {
  console.error("node page.mjs http://127.0.0.1:8080 OUT_DIR");
  process.exit(2);
}
fs.mkdirSync(out, { recursive: true });
const token = process.env.HEARTH_TOKEN;
const headers = { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }) };
const ask = async (at, body) => (await fetch(server + at, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) })).json();

const failures = [];
const told = new Set();
const say = (text) => told.has(text) || (told.add(text), console.log(text));
const check = (isTrue, text) => isTrue || (failures.push(text), console.log(`FAILED ${text}`));

function crc(bytes) {
  let sum = ~0;
  for (const byte of bytes) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit += 1) sum = (sum >>> 1) ^ (sum & 1 ? 0xedb88320 : 0);
  }
  return ~sum >>> 0;
}

function png(width, height, grey) {
  const chunk = (name, data) => {
    const inside = Buffer.concat([Buffer.from(name), data]);
    const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)];
    length.writeUInt32BE(data.length);
    sum.writeUInt32BE(crc(inside));
    return Buffer.concat([length, inside, sum]);
  };
  const head = Buffer.alloc(13);
  head.writeUInt32BE(width, 0);
  head.writeUInt32BE(height, 4);
  head[8] = 8;
  const rows = Array.from({ length: height }, (_, y) => Buffer.concat([Buffer.from([0]), grey.subarray(y * width, (y + 1) * width)]));
  return Buffer.concat([Buffer.from("\x89PNG\r\n\x1a\n", "latin1"), chunk("IHDR", head), chunk("IDAT", zlib.deflateSync(Buffer.concat(rows))), chunk("IEND", Buffer.alloc(0))]);
}

// Digits of the bundled data, as PNG and with their labels.
function digits(n) {
  const [images, labels] = ["images-idx3-ubyte.gz", "labels-idx1-ubyte.gz"].map((file) => zlib.gunzipSync(fs.readFileSync(path.join(mnist, file))));
  return Array.from({ length: n }, (_, at) => ({ png: png(28, 28, images.subarray(16 + at * 784, 16 + (at + 1) * 784)), label: String(labels[8 + at]) }));
}

const INPUTS = {
  texts: { Text: "a small bird that sings" },
  sentence: { Sentence: "李明 went from 北京 to Hearth in May" },
  question: { Context: "The tower was built by Gustave Eiffel in 1889 for a fair.", Question: "Who built the tower?" },
  choices: { Question: "The sky is", "Choice 1": "blue", "Choice 2": "made of cheese" },
  source: { Text: "Open the document and choose Save." },
};

class Visit {
  constructor(page, name) {
    Object.assign(this, { page, name });
  }

  async look(state) {
    const { page, name } = this;
    await page.waitForTimeout(350);
    await page.screenshot({ path: path.join(out, `${state}-${name}.png`), fullPage: true });
    const { violations } = await page.evaluate(`${axe}; axe.run(document, { resultTypes: ["violations"] })`);
    for (const one of violations) {
      const says = `${state} ${name}: axe ${one.impact} ${one.id}: ${one.nodes.map((node) => node.html.slice(0, 120)).slice(0, 3).join(" | ")}`;
      if (["serious", "critical"].includes(one.impact)) check(false, says);
      else say(says);
    }
    const [wide, window] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    check(wide <= window, `${state} ${name}: ${wide} pixels wide`);
  }

  async open(hash) {
    await this.page.goto("about:blank");
    await this.page.goto(`${server}/#${new URLSearchParams(hash)}`);
    const box = this.page.locator("#token-value");
    await this.page.locator("h1").or(box).first().waitFor();
    if (token && await box.isVisible()) {
      await box.fill(token);
      await this.page.getByRole("button", { name: "Continue" }).click();
      await this.page.locator("h1").waitFor();
    }
  }

  async press() {
    await this.page.locator(".bench button.main").click();
    await this.result();
  }

  async result() {
    await this.page.waitForFunction(() => !document.querySelector("[aria-busy]") && !document.querySelector(".output > .quiet:only-child"));
    const wrong = this.page.locator(".problem");
    check(!await wrong.count(), `${this.name} ${this.page.url()}: ${await wrong.allTextContents()}`);
  }

  async drop(bytes, name) {
    const data = await this.page.evaluateHandle(([bytes, name]) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0))], name, { type: "image/png" }));
      return transfer;
    }, [bytes.toString("base64"), name]);
    await this.page.dispatchEvent(".drop", "dragover", { dataTransfer: data });
    await this.page.dispatchEvent(".drop", "drop", { dataTransfer: data });
    await this.page.locator(".preview img").waitFor();
    await this.page.waitForTimeout(50);
    await this.result();
  }

  async explain(state) {
    const button = this.page.getByRole("button", { name: "Explain" });
    if (!await button.count()) return;
    await button.click();
    await this.page.locator(".more .legend, .more .problem").first().waitFor();
    check(!await this.page.locator(".more .problem").count(), `${state}: ${await this.page.locator(".more .problem").allTextContents()}`);
    await this.page.locator(".more summary").first().click().catch(() => {});
    await this.look(`${state}-explained`);
  }

  async predict(model) {
    await this.open({ view: "try", model: model.id, do: "predict" });
    const state = `predict-${model.id}`;
    if (model.reads === "image") return this.images(model, state);
    for (const [label, text] of Object.entries(INPUTS[model.reads] ?? INPUTS.texts)) await this.page.getByLabel(label, { exact: true }).fill(text);
    await this.press();
    await this.look(state);
    const headline = this.page.locator(".headline");
    if (model.task === "classification") {
      const { predictions: [said] } = await ask("/v1/predict", { model: model.id, inputs: INPUTS.texts.Text });
      check((await headline.textContent()).startsWith(said.classes[0].name), `${state}: the page says ${await headline.textContent()}`);
      say(`${model.id}: a text is classified as ${said.classes[0].name}`);
    }
    await this.explain(state);
  }

  async images(model, state) {
    const isDigits = model.task === "classification" && model.view?.[0] === 1 && model.classes.join("") === "0123456789";
    if (!isDigits) {
      const grey = Buffer.from(Array.from({ length: 120 * 90 }, (_, at) => 128 + 100 * Math.sin(at % 120 / 14) * Math.cos(Math.floor(at / 120) / 11)));
      await this.drop(png(120, 90, grey), "waves.png");
      await this.look(state);
      return this.explain(state);
    }
    let right = 0;
    const all = digits(10);
    for (const [at, { png: bytes, label }] of all.entries()) {
      await this.drop(bytes, `digit-${at}.png`);
      const says = await this.page.locator(".headline").textContent();
      const { predictions: [said] } = await ask("/v1/predict", { model: model.id, inputs: { image: `data:image/png;base64,${bytes.toString("base64")}` } });
      check(says.startsWith(said.classes[0].name), `${state}: the page says ${says}, the server ${said.classes[0].name}`);
      right += said.classes[0].name === label;
    }
    say(`${model.id}: ${right} of ${all.length} dropped digits are recognised`);
    await this.look(state);
    return this.explain(state);
  }

  async fill(model) {
    await this.open({ view: "try", model: model.id, do: "fill-mask" });
    await this.page.getByLabel("Text with blanks").fill("a small");
    await this.page.getByRole("button", { name: "Insert [MASK]" }).click();
    await this.page.keyboard.type(" that sings");
    check(await this.page.getByLabel("Text with blanks").inputValue() === "a small [MASK] that sings", "the button puts the mask where the cursor is");
    await this.press();
    say(`${model.id}: a mask is filled: ${await this.page.locator(".big").textContent()}`);
    await this.look(`fill-${model.id}`);
  }

  async complete(model) {
    await this.open({ view: "try", model: model.id, do: "complete" });
    await this.page.getByLabel("Text to go on with").fill("The wind");
    await this.page.getByText("Options").click();
    await this.page.getByLabel("Tokens at most").fill("60");
    // What is likeliest is the same each time, and seldom ends early.
    await this.page.getByLabel("Temperature").fill("0");
    // The observer is called once for all pieces that come together.
    await this.page.evaluate(() => {
      window.arrivals = 0;
      const isWritten = ({ target }) => target.className === "written";
      const observer = new MutationObserver((changes) => { window.arrivals += changes.some(isWritten); });
      observer.observe(document.querySelector(".output"), { childList: true, subtree: true });
    });
    await this.page.locator(".bench button.main").click();
    await this.page.locator(".written").waitFor({ state: "attached" });
    await this.page.locator(".streaming").waitFor({ state: "detached" });
    await this.result();
    const [arrivals, letters] = await this.page.evaluate(() => [window.arrivals, document.querySelector(".written").textContent.length]);
    const said = await this.page.locator(".output .hint").last().textContent();
    // Of a text that is short, or of a small model, all pieces may come together.
    const isSlow = Number(/ in ([\d.]+) s/.exec(said)?.[1]) >= 0.5;
    if (isSlow) check(arrivals > 2, `${model.id}: the text comes at once`);
    say(`${model.id}: ${isSlow ? "a text is generated as it streams" : `a text of ${letters} letters comes in less than 0.5 s`}`);
    await this.look(`complete-${model.id}`);
    await this.page.getByLabel("Tokens at most").fill("2000");
    await this.page.locator(".bench button.main").click();
    // A small model may be done before anybody can stop it.
    await this.page.getByRole("button", { name: "Stop" }).click({ timeout: 2000 }).catch(() => {});
    await this.page.locator(".streaming").waitFor({ state: "detached" });
    if (!await this.page.getByText("Stopped.").count()) say(`${model.id}: the text ends before it is stopped`);
  }

  async chat(model) {
    await this.open({ view: "try", model: model.id, do: "chat" });
    for (const text of ["Good morning", "What did I say?"]) {
      await this.page.getByLabel("Your message").fill(text);
      await this.page.keyboard.press("Enter");
      await this.page.locator(".streaming").waitFor({ state: "detached" });
    }
    check(await this.page.locator(".turn").count() === 4, `${model.id}: a talk has four turns`);
    await this.look(`chat-${model.id}`);
  }

  async embed(model) {
    await this.open({ view: "try", model: model.id, do: "embed" });
    if (model.view) {
      const files = digits(4).map(({ png: buffer }, at) => ({ name: `digit-${at}.png`, mimeType: "image/png", buffer }));
      await this.page.getByLabel("Images").setInputFiles(files);
    } else await this.page.getByLabel("Texts, one a line").fill("a bird that sings\nan animal with feathers\na machine that flies\nto walk slowly");
    await this.press();
    await this.look(`embed-${model.id}`);
  }

  async runs() {
    const { data: runs } = await ask("/v1/runs");
    await this.open({ view: "runs" });
    await this.look("runs");
    const live = runs.find((run) => run.state === "running");
    if (live) {
      await this.open({ view: "runs", run: live.name });
      const points = () => this.page.locator("svg.curves polyline").evaluateAll((lines) => lines.map((line) => line.getAttribute("points")).join());
      await this.page.locator("svg.curves polyline").first().waitFor();
      const before = await points();
      for (let seconds = 0; seconds < 20 && await points() === before; seconds += 1) await this.page.waitForTimeout(1000);
      check(await points() !== before, `${live.name}: the curves stand still`);
      say(`${live.name}: a live run is watched`);
    } else {
      say("no run is running: none is watched");
    }
    const some = runs.slice(0, 3).map((run) => run.name);
    const part = async (show) => {
      const hash = new URLSearchParams([["view", "runs"], ["show", show], ...some.map((name) => ["run", name])]);
      await this.open(hash);
      await this.page.getByText("Loading…").first().waitFor({ state: "detached" });
      await this.look(`runs-${show}`);
    };
    for (const show of ["curves", "compare", "confusion", "samples"]) await part(show);
  }
}

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
const { data: models } = await ask("/v1/models");
const runs = (await ask("/v1/runs")).data ?? [];
const DOES = { predict: "predict", "fill-mask": "fill", complete: "complete", chat: "chat", embed: "embed" };
const missing = Object.keys(DOES).filter((can) => !models.some((model) => model.can.includes(can)));
if (missing.length) say(`no model is served that can ${missing.join(" or ")}`);

for (const [width, height] of [[1280, 800], [390, 844]]) {
  for (const colorScheme of ["light", "dark"]) {
    const context = await browser.newContext({ viewport: { width, height }, colorScheme, reducedMotion: "reduce" });
    const page = await context.newPage();
    page.setDefaultTimeout(15000);
    const visit = new Visit(page, `${width}-${colorScheme}`);
    page.on("console", (message) => ["error", "warning"].includes(message.type()) && !/status of 4/.test(message.text()) && check(false, `${visit.name} console: ${message.text()}`));
    page.on("pageerror", (error) => check(false, `${visit.name}: ${error.message}`));
    page.on("request", (request) => check(/^(data|blob):/.test(request.url()) || request.url().startsWith(server), `${visit.name}: asks for ${request.url()}`));
    for (const model of models) {
      for (const can of model.can.filter((can) => can in DOES)) {
        try {
          await visit[DOES[can]](model);
        } catch (error) {
          check(false, `${model.id} ${can} ${visit.name}: ${error.message.split("\n")[0]}`);
        }
      }
    }
    if (models.length) {
      await visit.open({ view: "try" });
      await page.locator(".bench button.main").first().click();
      await visit.look("nothing-given");
    }
    if (runs.length) await visit.runs().catch((error) => check(false, `runs ${visit.name}: ${error.message.split("\n")[0]}`));
    await context.close();
  }
}
await browser.close();
console.log(failures.length ? `${failures.length} failed` : "all is well");
process.exitCode = failures.length ? 1 : 0;
