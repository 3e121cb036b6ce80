// An image from a person. In: a file dropped, pasted or chosen, or a drawing. Out: a data URL that the server can read.

import { Missing } from "./bench.js";
import { announce, details, el, field, problem } from "./dom.js";

// Bytes past which an image is made smaller before it travels, and pixels of its longer side then.
const LARGEST = 4 << 20;
const SIDE = 2048;
const AS_IT_IS = ["image/png", "image/jpeg"];

function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error(`${file.name} cannot be read.`));
    reader.readAsDataURL(file);
  });
}

async function decoded(url, name) {
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
  } catch {
    throw new Error(`${name} is not an image that this browser can show.`);
  }
  return image;
}

// An image as the server can read it, shown and named.
export async function readFile(file) {
  const name = file.name || "The image";
  const url = await dataUrl(file);
  const image = await decoded(url, name);
  if (AS_IT_IS.includes(file.type) && file.size <= LARGEST) return { url, image, name };
  const scale = Math.min(1, SIDE / Math.max(image.naturalWidth, image.naturalHeight));
  const canvas = el("canvas", { width: Math.round(image.naturalWidth * scale), height: Math.round(image.naturalHeight * scale) });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  const smaller = file.type === "image/jpeg" ? canvas.toDataURL("image/jpeg", 0.92) : canvas.toDataURL("image/png");
  return { url: smaller, image: await decoded(smaller, name), name };
}

// - view: channels, height and width that the model sees, or null
export function pictureInput(view, onready) {
  let picture;
  const file = el("input", { type: "file", accept: "image/*", class: "unseen" });
  const preview = el("div", { class: "preview", hidden: true });
  const says = el("p", { class: "hint" }, "Drop an image here or paste one.");
  const wrong = el("div", {});
  const drop = el("div", { class: "drop" }, preview, file, el("label", { class: "button", for: file.id = "image-file" }, "Choose an image"), says);
  const take = async (chosen) => {
    if (!chosen) return;
    wrong.replaceChildren();
    try {
      const read = await readFile(chosen);
      use(read);
    } catch (error) {
      wrong.replaceChildren(problem(error.message));
    }
  };
  const use = (read) => {
    picture = read;
    const { naturalWidth, naturalHeight } = read.image;
    read.image.alt = `The input: ${read.name}`;
    read.image.classList.toggle("pixels", Math.max(naturalWidth, naturalHeight) <= 128);
    preview.replaceChildren(read.image);
    preview.hidden = false;
    says.textContent = `${read.name}, ${naturalWidth} × ${naturalHeight} pixels. Drop or paste another one.`;
    announce(`${read.name} taken`);
    onready?.();
  };
  file.addEventListener("change", () => take(file.files[0]));
  listen(drop, take);
  const fields = [drop, wrong];
  if (view?.[0] === 1 && Math.max(view[1], view[2]) <= 64) fields.push(drawing(view, use));
  return {
    fields,
    picture: () => picture,
    read: () => {
      if (!picture) throw new Missing("An image is missing: drop, paste or choose one.", file);
      return { image: picture.url };
    },
  };
}

// Images may be dropped anywhere, and pasted, as long as the field is shown.
function listen(drop, take) {
  const leave = new AbortController();
  const on = (name, act) => document.addEventListener(name, (event) => {
    if (drop.isConnected) act(event);
    else leave.abort();
  }, { signal: leave.signal });
  // The field is not in the page before its view is.
  queueMicrotask(() => setTimeout(() => {
    on("dragover", (event) => { event.preventDefault(); drop.classList.add("dragged"); });
    on("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("dragged"); });
    on("drop", (event) => { event.preventDefault(); drop.classList.remove("dragged"); take(event.dataTransfer.files[0]); });
    on("paste", (event) => {
      const image = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
      if (image) { event.preventDefault(); take(image); }
    });
  }));
}

// A pad for models of small grey images: white on black, as they are trained.
function drawing([, height, width], use) {
  const scale = 10;
  const pad = el("canvas", { width: width * scale, height: height * scale, class: "pad", role: "img", "aria-label": "Pad to draw on with a mouse, pen or finger" });
  const context = pad.getContext("2d");
  const clear = () => { context.fillStyle = "#000"; context.fillRect(0, 0, pad.width, pad.height); };
  clear();
  Object.assign(context, { strokeStyle: "#fff", lineWidth: 2.2 * scale, lineCap: "round", lineJoin: "round" });
  const at = (event) => {
    const box = pad.getBoundingClientRect();
    return [(event.clientX - box.left) * pad.width / box.width, (event.clientY - box.top) * pad.height / box.height];
  };
  let last;
  pad.addEventListener("pointerdown", (event) => { pad.setPointerCapture(event.pointerId); last = at(event); line(last); });
  pad.addEventListener("pointermove", (event) => { if (last) line(at(event)); });
  for (const name of ["pointerup", "pointercancel"]) pad.addEventListener(name, () => { last = undefined; });
  const line = (to) => {
    context.beginPath();
    context.moveTo(...last);
    context.lineTo(...to);
    context.stroke();
    last = to;
  };
  const take = async () => {
    const small = el("canvas", { width, height });
    const smooth = small.getContext("2d");
    smooth.imageSmoothingQuality = "high";
    smooth.drawImage(pad, 0, 0, width, height);
    const url = small.toDataURL("image/png");
    use({ url, image: await decoded(url, "The drawing"), name: "Drawing" });
  };
  return details("Draw one instead", pad, el("div", { class: "buttons" },
    el("button", { type: "button", onclick: take }, "Use the drawing"), el("button", { type: "button", onclick: clear }, "Clear")));
}
