// Boxes and masks over an image. In: what a model found, and the image. Out: the image with it, and the same as a table.

import { el, newId, percent, share, svg, table } from "./dom.js";
import { bars, colour } from "./results.js";

// Of pixels at which the model does not look.
const OUTSIDE = 255;

function over(picture, above) {
  const image = picture.image.cloneNode();
  const node = el("div", { class: "over" }, image, above);
  node.style.setProperty("--ratio", picture.image.naturalWidth / picture.image.naturalHeight);
  return node;
}

// A slider under its label, with its value beside it.
function slider(label, value, onchange) {
  const shown = el("output", {}, percent(value));
  const input = el("input", { type: "range", min: 0, max: 1, step: 0.01, value, id: newId("slider"), oninput: () => {
    shown.textContent = percent(Number(input.value));
    onchange(Number(input.value));
  } });
  return el("div", { class: "slider" }, el("label", { for: input.id }, label), input, shown);
}

export function boxesOver(all, { model, picture }) {
  const { naturalWidth: width, naturalHeight: height } = picture.image;
  const names = model.classes ?? [];
  const drawn = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", class: "boxes", "aria-label": `${all.length} boxes over the image` });
  const list = el("div", {});
  // Letters keep their size whatever the size of the image is.
  const size = Math.max(width, height) / 32;
  const show = (least) => {
    const shown = all.filter((one) => one.score >= least);
    drawn.replaceChildren(...shown.toReversed().map((one) => svg("g", { class: colour(names, one.name) },
      svg("rect", { x: one.x, y: one.y, width: one.width, height: one.height }),
      svg("text", { x: one.x + size / 4, y: Math.max(one.y - size / 4, size), "font-size": size }, `${one.name} ${percent(one.score)}`))));
    const rows = shown.map((one) => [one.name, percent(one.score), ...[one.x, one.y, one.width, one.height].map((side) => Math.round(side))]);
    list.replaceChildren(shown.length ? table("Boxes, the surest first", ["Class", "Score", "x", "y", "Width", "Height"], rows)
      : el("p", { class: "quiet" }, "No box is sure enough."));
  };
  const start = all.some((one) => one.score >= 0.3) ? 0.3 : 0;
  show(start);
  const says = all.length ? `${all.length} boxes; the surest is ${all[0].name}, ${percent(all[0].score)}` : "No box is found.";
  return [[over(picture, drawn), all.length > 0 && slider("Show boxes from", start, show), list], says];
}

function rgb(name) {
  const probe = el("span", { class: name, hidden: true });
  document.body.append(probe);
  const hex = getComputedStyle(probe).getPropertyValue("--c").trim();
  probe.remove();
  return [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16));
}

async function paint(canvas, url, names) {
  const image = new Image();
  image.src = url;
  await image.decode();
  Object.assign(canvas, { width: image.naturalWidth, height: image.naturalHeight });
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  const colours = names.map((name) => rgb(colour(names, name)));
  for (let at = 0; at < pixels.data.length; at += 4) {
    const number = pixels.data[at];
    if (number === OUTSIDE) pixels.data[at + 3] = 0;
    else pixels.data.set([...(colours[number] ?? [0, 0, 0]), 255], at);
  }
  context.putImageData(pixels, 0, 0);
}

export function maskOver(mask, { model, picture }) {
  const names = model.classes ?? [];
  const canvas = share(el("canvas", { class: "mask", role: "img", "aria-label": "The mask over the image" }), 0.6);
  paint(canvas, mask.png, names);
  const { classes } = mask;
  const rows = classes.map((one) => ({ name: one.name, probability: one.share, colour: colour(names, one.name) }));
  const says = classes.length ? `The largest part is ${classes[0].name}, ${percent(classes[0].share)}` : "No part has a class.";
  return [[over(picture, canvas), slider("Mask over the image", 0.6, (value) => share(canvas, value)), bars("Share of the image", rows, { figure: "Share" })], says];
}
