// The page: recognises what is dropped on it, and draws.

import { texts } from "./texts.js";

const $ = (id) => document.getElementById(id);
const COUNTS = [1, 4, 9, 16, 36];
let language = "en";

function text(key, values = {}) {
  return texts[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

function percent(share) {
  return new Intl.NumberFormat(language, {
    style: "percent",
    maximumFractionDigits: 1,
  }).format(share);
}

// Languages.

function preferredLanguage() {
  try {
    const kept = localStorage.getItem("language");
    if (kept in texts) return kept;
  } catch {
    // Some browsers keep nothing; then theirs is taken.
  }
  return navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
}

function setLanguage(chosen) {
  language = chosen;
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const element of document.querySelectorAll("[data-text]")) {
    element.textContent = text(element.dataset.text);
  }
  for (const element of document.querySelectorAll("[data-title]")) {
    element.title = text(element.dataset.title);
    element.setAttribute("aria-label", element.title);
  }
  $("language").textContent = text("language");
  for (const redraw of results.values()) redraw();
}

// What was shown last, by place: how to show it again, in another language.
const results = new Map();

function show(place, render) {
  results.set(place, render);
  render();
}

// Talking to the server.

class Failure extends Error {
  constructor(key, values = {}) {
    super(key);
    this.key = key;
    this.values = values;
  }
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Failure("unreachable");
  }
  if (response.ok) return response;
  if (response.status === 413) throw new Failure("tooLarge");
  if (response.status === 503) throw new Failure("busy");
  const content = await response.json().catch(() => ({}));
  const reason = content.error ?? response.statusText;
  if (path === "/page/recognise" && response.status === 400) {
    throw new Failure("unreadable");
  }
  throw new Failure("failed", { reason });
}

function askJson(path, content) {
  const headers = { "Content-Type": "application/json" };
  return ask(path, { method: "POST", headers, body: JSON.stringify(content) });
}

function showError(id, error) {
  if (error && !(error instanceof Failure)) throw error;
  show(id, () => {
    $(id).hidden = !error;
    $(id).textContent = error ? text(error.key, error.values) : "";
  });
}

// Runs one thing while a button cannot be pressed again.
async function whileDisabled(button, errorId, run) {
  button.disabled = true;
  showError(errorId, null);
  try {
    await run();
  } catch (error) {
    showError(errorId, error);
  } finally {
    button.disabled = false;
  }
}

// Recognising.

let asked = 0;

async function recognise(file) {
  const number = ++asked;
  showError("recognise-error", null);
  $("drop").classList.add("busy");
  try {
    const response = await ask("/page/recognise", { method: "POST", body: file });
    const answer = await response.json();
    if (number === asked) showAnswer(file, answer);
  } catch (error) {
    if (number !== asked) return;
    $("answer").hidden = true;
    showError("recognise-error", error);
  } finally {
    if (number === asked) $("drop").classList.remove("busy");
  }
}

function showAnswer(file, answer) {
  URL.revokeObjectURL($("given").src);
  $("given").src = URL.createObjectURL(file);
  $("explained").hidden = !answer.explanation;
  if (answer.explanation) $("explanation").src = answer.explanation;
  $("unknown-note").hidden = !answer.is_unknown;
  $("name").classList.toggle("unknown", answer.is_unknown);
  show("answer", () => {
    $("name").textContent = answer.is_unknown ? text("unknown") : answer.top[0][0];
    $("bars").replaceChildren(...answer.top.map(makeBar));
  });
  $("answer").hidden = false;
}

function makeBar([name, share]) {
  const row = document.createElement("li");
  const who = document.createElement("span");
  who.className = "who";
  who.textContent = name;
  const value = document.createElement("span");
  value.textContent = percent(share);
  const bar = document.createElement("progress");
  bar.max = 1;
  bar.value = share;
  bar.setAttribute("aria-label", name);
  row.append(who, value, bar);
  return row;
}

function listenForPictures() {
  const drop = $("drop");
  $("file").addEventListener("change", () => {
    const [file] = $("file").files;
    if (file) recognise(file);
    // The same file may be chosen again.
    $("file").value = "";
  });
  // A picture that misses its place would otherwise replace the page.
  for (const name of ["dragover", "drop"]) {
    document.addEventListener(name, (event) => event.preventDefault());
  }
  drop.addEventListener("dragover", () => drop.classList.add("over"));
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    drop.classList.remove("over");
    const [file] = event.dataTransfer.files;
    if (file) recognise(file);
  });
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData.files;
    if (file) recognise(file);
  });
}

// Drawing.

function wishes() {
  return {
    character: $("character").value,
    truncation: $("truncation").valueAsNumber,
  };
}

async function draw() {
  const wish = { ...wishes(), seed: $("seed").valueAsNumber, count: +$("count").value };
  const { pictures } = await (await askJson("/page/draw", wish)).json();
  show("drawings", () => {
    const figures = pictures.map((picture, i) => makeDrawing(picture, wish, i + 1));
    $("drawings").replaceChildren(...figures);
  });
}

function makeDrawing(picture, wish, number) {
  const figure = document.createElement("figure");
  const link = document.createElement("a");
  link.href = picture.png;
  link.download = `${wish.character}_${wish.seed}_${number}.png`;
  link.title = text("save", { number });
  const image = document.createElement("img");
  image.src = picture.png;
  image.alt = link.title;
  link.append(image);
  figure.append(link);
  if ("name" in picture) figure.append(makeOpinion(picture, wish.character));
  return figure;
}

function makeOpinion(picture, character) {
  const opinion = document.createElement("figcaption");
  const isHit = !picture.is_unknown && picture.name === character;
  opinion.className = isHit ? "hit" : "miss";
  const values = { name: picture.name, share: percent(picture.share) };
  opinion.textContent = text(picture.is_unknown ? "saysUnknown" : "says", values);
  return opinion;
}

async function showWay() {
  const seeds = [$("seed").valueAsNumber, $("second-seed").valueAsNumber];
  if (seeds[0] === seeds[1]) throw new Failure("sameSeeds");
  const wish = { ...wishes(), seeds };
  const gif = await (await askJson("/page/way", wish)).blob();
  URL.revokeObjectURL($("way-image").src);
  const address = URL.createObjectURL(gif);
  $("way-image").src = address;
  $("way-link").href = address;
  $("way-link").download = `${wish.character}_${seeds.join("_")}.gif`;
  $("way-result").hidden = false;
}

function addOptions(select, values) {
  select.replaceChildren(...values.map((value) => new Option(value, value)));
}

function listenForWishes(facts) {
  addOptions($("character"), facts.drawn);
  const counts = COUNTS.filter((count) => count <= facts.most);
  addOptions($("count"), counts);
  $("count").value = counts.filter((count) => count <= 9).at(-1);
  const showTruncation = () => {
    $("truncation-value").textContent = percent($("truncation").valueAsNumber);
  };
  $("truncation").addEventListener("input", showTruncation);
  show("truncation", showTruncation);
  $("dice").addEventListener("click", () => {
    $("seed").value = Math.floor(Math.random() * 2 ** 31);
  });
  $("wishes").addEventListener("submit", (event) => {
    event.preventDefault();
    whileDisabled($("draw-button"), "draw-error", draw);
  });
  $("way").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!$("seed").reportValidity()) return;
    whileDisabled($("way-button"), "way-error", showWay);
  });
}

async function start() {
  setLanguage(preferredLanguage());
  $("language").addEventListener("click", () => {
    setLanguage(language === "en" ? "zh" : "en");
    try {
      localStorage.setItem("language", language);
    } catch {
      // Then the choice holds until the page is left.
    }
  });
  try {
    const facts = await (await ask("/page/facts")).json();
    $("recognise").hidden = !facts.recognises;
    $("draw").hidden = !facts.drawn.length;
    listenForPictures();
    listenForWishes(facts);
  } catch (error) {
    showError("page-error", error);
  }
}

start();
