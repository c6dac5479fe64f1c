// What the views share: sharp canvases, colours of the theme, numbers as text, a log axis, dragging.
const byId = (id) => document.getElementById(id);
const numbers = JSON.parse(byId("numbers").textContent);
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const theme = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const dark = () => matchMedia("(prefers-color-scheme: dark)").matches;

// The colour of point j of N: distinct hues, light enough on dark paper.
const hue = (j, N) => `hsl(${Math.round((360 * j) / N + 20) % 360} 75% ${dark() ? 62 : 42}%)`;

// A rounded number to read, with all its digits in the element's value.
function show(id, value, digits = 4) {
  const values = Array.isArray(value) ? value : [value];
  byId(id).value = values.map(String).join(" ");
  const text = values.map((v) => readable(v, digits)).join(", ");
  byId(id).textContent = values.length > 1 ? `(${text})` : text;
}

function readable(value, digits = 4) {
  if (Math.abs(value) < 1e-12) value = 0;
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6)) return minus(value.toExponential(2));
  return minus(Math.abs(value) >= 100 ? value.toFixed(1) : value.toFixed(digits));
}
const minus = (text) => text.replaceAll("-", "−");
const level = (sigma) => minus(String(Number(sigma.toPrecision(3))));

// A context in CSS pixels, cleared.
function sharp(canvas, height) {
  const width = canvas.clientWidth, ratio = window.devicePixelRatio || 1;
  canvas.style.height = `${height}px`;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const ctx = canvas.getContext("2d");
  ctx.scale(ratio, ratio);
  ctx.font = "12px system-ui, sans-serif";
  ctx.lineJoin = "round";
  return { ctx, width, height };
}

function line(ctx, points, color, width = 1, dash = []) {
  ctx.beginPath();
  points.forEach(([a, b], i) => (i ? ctx.lineTo(a, b) : ctx.moveTo(a, b)));
  ctx.strokeStyle = color;
  ctx.lineWidth = width;
  ctx.setLineDash(dash);
  ctx.stroke();
  ctx.setLineDash([]);
}

function dot(ctx, a, b, radius, color, edge = theme("paper")) {
  ctx.beginPath();
  ctx.arc(a, b, radius, 0, 2 * Math.PI);
  ctx.fillStyle = color;
  ctx.fill();
  ctx.strokeStyle = edge;
  ctx.lineWidth = 2;
  ctx.stroke();
}

function diamond(ctx, a, b, size, color) {
  ctx.beginPath();
  ctx.moveTo(a, b - size); ctx.lineTo(a + size, b); ctx.lineTo(a, b + size); ctx.lineTo(a - size, b);
  ctx.closePath();
  ctx.fillStyle = color;
  ctx.fill();
  ctx.strokeStyle = theme("paper");
  ctx.lineWidth = 1.5;
  ctx.stroke();
}

function label(ctx, text, a, b, align = "center", color = theme("faint"), baseline = "alphabetic") {
  ctx.fillStyle = color;
  ctx.textAlign = align;
  ctx.textBaseline = baseline;
  ctx.fillText(text, a, b);
}

// A label that stays readable over lines.
function note(ctx, text, a, b, align) {
  ctx.textAlign = align;
  ctx.textBaseline = "alphabetic";
  ctx.strokeStyle = theme("paper");
  ctx.lineWidth = 4;
  ctx.strokeText(text, a, b);
  label(ctx, text, a, b, align, theme("ink"));
}

// Powers of ten between low and high, and 2 and 5 times them where `place` leaves a gap of so many pixels.
function logTicks(low, high, place, gap = 30) {
  const ticks = [];
  for (const mantissa of [1, 5, 2])
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
      const tick = Number(`${mantissa}e${power}`);
      const inside = tick >= low * 0.999 && tick <= high * 1.001;
      if (inside && ticks.every((other) => Math.abs(place(other) - place(tick)) >= gap)) ticks.push(tick);
    }
  return ticks;
}

function linearTicks(low, high, count = 8) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const ticks = [];
  for (let k = Math.ceil(low / step); k * step <= high + 1e-9 * step; k++) ticks.push(k * step);
  return ticks;
}

// Calls move(a, b) in CSS pixels of the canvas while a pointer is down on it.
function draggable(canvas, move) {
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    move(event.clientX - box.left, event.clientY - box.top);
  };
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); at(event); });
  canvas.addEventListener("pointermove", (event) => { if (canvas.hasPointerCapture(event.pointerId)) at(event); });
}

// Draws when something changed, once for each frame; and when the window's size or theme did.
function redrawn(draw) {
  let waiting = false;
  const request = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(); });
  };
  window.addEventListener("resize", request);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", request);
  return request;
}
