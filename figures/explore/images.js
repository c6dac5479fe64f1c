// The section of images: everything was computed beforehand, at levels of σ that the slider snaps to.
const ABOUT = {
  guided: "D + w (D_class − D), guided towards the source's class",
  Gaussian: "that of the Gaussian with the mean and covariance of the images",
  local: "each pixel judged by its 5×5 window",
  network: "a trained network",
};
async function exploreImages(data) {
  const levels = data.sigmas.length, count = data.source_index.length, [w, h] = data.cell;
  const sheets = {};
  const pictures = Object.fromEntries(["sources", "noisy", "means", "landings"].map((name) => [name, data[name]]));
  data.others.forEach(({ sheet }, i) => { pictures[`other${i}`] = sheet; });
  for (const name of Object.keys(pictures)) {
    sheets[name] = new Image();
    sheets[name].src = pictures[name];
    await sheets[name].decode();
  }
  const cellOf = { landings: (m, k) => [data.landing[m][k], 0], sources: (m) => [0, m] };
  const put = (ctx, name, m, k, left, top, width, height) => {
    const [column, row] = (cellOf[name] ?? ((m, k) => [k, m]))(m, k);
    ctx.drawImage(sheets[name], column * w, row * h, w, h, left, top, width, height);
  };
  const middle = data.sigmas.findIndex((sigma) => sigma < 1.5 * (data.border ?? Infinity));
  const state = { k: middle < 0 ? Math.floor(levels / 2) : middle, m: 0 };
  const slider = byId("images-sigma");
  slider.max = levels - 1;
  const N = data.size.toLocaleString("en");
  byId("images-title").textContent = `${data.dataset}: ${N} images of ${data.event}`;
  byId("images-intro").textContent = `Move the slider from noise (left) to data (right). The best guess is first the mean of all ${N} images, then a blend of a few, then one image; `
    + "the flow always lands on an image of the data, at high noise mostly not on the one the noise was added to. Green frame: it is that source; dashed: another image.";
  byId("images-snap").textContent = `level ${state.k + 1} of ${levels}; snaps to computed levels`;
  byId("images-legend").textContent = "Above: noisy x, guess and landing of the chosen source, at the σ below them. Curve: effective number of points, median and quartiles over "
    + `${data.draws} draws of (x₀, ε); N = ${N} at the top, 1 at the bottom. Drag on it to move the slider. `
    + `Below it the levels of ${data.grids[0].length} sampling steps: ${data.grid_names.join(", then ")}${data.grids.length > 1 ? ", made for these images (least KL of the ancestral sampler's path)" : ""}.`;
  byId("images-fine").textContent = `${data.dataset}: N = ${N}, ${data.event}, fingerprint ${data.fingerprint}; ${data.source}; ${data.licence}. `
    + (data.others.length ? `Under the source, other answers to the same noisy x: ${data.others.map(({ name }) => ABOUT[name.split(/[, \n]/)[0]]).join("; ")}. ` : "")
    + "One noise ε for each source at every σ; noisy images are drawn as x/√(1 + σ²)."
    + (data.shown_reduced ? ` Pictures are reduced to ${w}×${h} for show; the numbers are of the full size.` : "");

  const names = { noisy: "noisy x", means: "guess\nE[x₀ | x]", landings: "landing\nof the flow", sources: "source x₀" };
  data.others.forEach(({ name }, i) => { names[`other${i}`] = name; });
  const called = (i, name) => `image ${i}${name ? ` (${name})` : ""}`;
  const grid = byId("images-grid"), cells = [];
  grid.style.gridTemplateColumns = `minmax(4rem, 6rem) repeat(${count}, 1fr)`;
  for (const name of Object.keys(names)) {
    const title = Object.assign(document.createElement("div"), { className: "name", textContent: names[name] });
    grid.append(title);
    for (let m = 0; m < count; m++) {
      const canvas = Object.assign(document.createElement("canvas"), { width: w, height: h });
      canvas.addEventListener("click", () => { state.m = m; request(); });
      grid.append(canvas);
      cells.push({ name, m, canvas });
    }
  }
  const buttons = Array.from({ length: count }, (_, m) => {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: data.source_names?.[m] ?? m + 1 });
    button.addEventListener("click", () => { state.m = m; request(); });
    byId("images-sources").append(button);
    return button;
  });

  function update() {
    const { k, m } = state, sigma = data.sigmas[k], hits = data.hit.filter((row) => row[k]).length;
    slider.value = k;
    slider.setAttribute("aria-valuetext", level(sigma));
    show("images-sigma-value", sigma);
    byId("images-sigma-value").textContent = level(sigma);
    byId("images-snap").textContent = `(level ${k + 1} of ${levels}: the slider snaps to computed levels)`;
    const above = data.border === null || sigma > data.border;
    byId("images-regime").textContent = (data.border ? (above ? `Above the border (σ = ${level(data.border)}): still choosing an image.` : `Below the border (σ = ${level(data.border)}): one image is left to refine.`) : "")
      + ` The flow lands on the source for ${hits} of ${count}.`;
    for (const { name, m: of, canvas } of cells) {
      const ctx = canvas.getContext("2d");
      put(ctx, name, of, k, 0, 0, w, h);
      canvas.className = [of === m ? "chosen" : "", name === "landings" ? (data.hit[of][k] ? "hit" : "miss") : ""].join(" ");
      canvas.title = `${names[name].replace("\n", " ")}, source ${data.source_names?.[of] ?? of + 1}`;
    }
    buttons.forEach((button, of) => button.setAttribute("aria-pressed", of === m));
    show("images-count", data.counts[m][k], 2);
    show("images-lead", data.leads[m][k]);
    byId("images-landing").value = data.landing_index[data.landing[m][k]];
    const place = data.landing[m][k], captured = data.captured[m][k];
    byId("images-landing").textContent = `${called(data.landing_index[place], data.names?.[place])}, ${data.hit[m][k] ? "the source" : `not the source, ${called(data.source_index[m], data.source_names?.[m])}`}`;
    byId("images-captured").value = captured;
    byId("images-captured").textContent = captured >= sigma ? "now: nothing changes it any more" : captured ? `from σ = ${level(captured)} on` : "never: x lies on a border";
    show("images-median", data.quartiles[k][1], 2);
    byId("images-quartiles").textContent = `${readable(data.quartiles[k][0], 2)} to ${readable(data.quartiles[k][2], 2)}`;
    curve();
  }

  // The strip of the chosen source above the curve, on one σ axis.
  function curve() {
    const canvas = byId("images-curve"), rows = ["noisy", "means", "landings"];
    const left = 52, room = canvas.clientWidth - left - 12;
    const every = Math.ceil((levels * 22) / room), side = Math.min(64, (room / levels) * every - 2), tall = side * h / w;
    const strip = rows.length * (tall + 4) + 8, plot = 200;
    const { ctx, width, height } = sharp(canvas, strip + plot + 42 + 14 * data.grids.length);
    const pitch = room / levels, high = data.sigmas[0], low = data.sigmas[levels - 1];
    const a = (sigma) => left + pitch * (0.5 + (levels - 1) * Math.log(high / sigma) / Math.log(high / low));
    const b = (n) => strip + plot - 6 - (plot - 12) * Math.log(n) / Math.log(Math.max(2, data.size));
    const now = a(data.sigmas[state.k]);
    line(ctx, [[now, 0], [now, strip + plot]], theme("mark"), 2);
    ctx.imageSmoothingEnabled = side * (window.devicePixelRatio || 1) < w;
    rows.forEach((name, row) => {
      for (let k = state.k % every; k < levels; k += every) {
        const middle = a(data.sigmas[k]), top = 2 + row * (tall + 4), edge = middle - side / 2;
        put(ctx, name, state.m, k, edge, top, side, tall);
        if (name === "landings") { ctx.fillStyle = theme(data.hit[state.m][k] ? "yes" : "no"); ctx.fillRect(edge, top + tall, side, 3); }
        if (k === state.k) { ctx.strokeStyle = theme("mark"); ctx.lineWidth = 2; ctx.strokeRect(edge, top, side, tall); }
      }
      label(ctx, ["x", "guess", "lands"][row], left - 4, 2 + row * (tall + 4) + tall / 2, "right", theme("faint"), "middle");
    });
    const at = (column) => data.sigmas.map((sigma, k) => [a(sigma), b(data.quartiles[k][column])]);
    ctx.beginPath();
    [...at(0), ...at(2).reverse()].forEach(([p, q], i) => (i ? ctx.lineTo(p, q) : ctx.moveTo(p, q)));
    ctx.fillStyle = `rgba(${theme("cloud")}, 0.3)`;
    ctx.fill();
    line(ctx, at(1), theme("guess"), 2.5);
    line(ctx, [[left, b(2)], [width - 6, b(2)]], theme("rule"), 1);
    line(ctx, [[left, strip], [left, strip + plot], [width - 6, strip + plot]], theme("faint"), 1);
    for (const n of [1, 2, ...logTicks(10, Math.max(10, data.size / 1.5), b, 22), data.size].filter((n, i, all) => n <= data.size && all.indexOf(n) === i))
      label(ctx, n >= 1e4 ? `${n / 1e3}k` : String(n), left - 4, b(n), "right", theme("faint"), "middle");
    for (const tick of logTicks(low, high, a)) label(ctx, level(tick), clamp(a(tick), left + 8, width - 14), strip + plot + 16);
    data.grids.forEach((levels, g) => {
      const top = strip + plot + 22 + 14 * g;
      label(ctx, data.grid_names[g], left - 4, top + 5, "right", theme("faint"), "middle");
      for (const sigma of levels) if (sigma >= low) line(ctx, [[a(sigma), top], [a(sigma), top + 9]], theme("ink"), 1.5);
    });
    label(ctx, "noise level σ, from noise to data →", left + room / 2, height - 4);
    if (data.border > low && data.border < high) {
      const place = a(data.border), flip = place > width - 100;
      ctx.fillStyle = `rgba(${theme("cloud")}, 0.35)`;
      ctx.fillRect(a(data.border_high), strip, a(data.border_low) - a(data.border_high), plot);
      line(ctx, [[place, strip], [place, strip + plot]], theme("ink"), 1.5, [6, 4]);
      note(ctx, `border σ = ${level(data.border)}`, place + (flip ? -8 : 8), strip + 16, flip ? "right" : "left");
    }
    dot(ctx, now, b(data.quartiles[state.k][1]), 6, theme("mark"));
    canvas.setAttribute("aria-label", `effective number of points against σ; at σ ${level(data.sigmas[state.k])} the median is ${readable(data.quartiles[state.k][1], 1)}`);
    state.from = (p) => clamp(Math.round((p - left) / pitch - 0.5), 0, levels - 1);
  }

  const request = redrawn(update);
  slider.addEventListener("input", () => { state.k = Number(slider.value); request(); });
  draggable(byId("images-curve"), (p) => { state.k = state.from(p); request(); });
  byId("images").hidden = false;
  update();
}

if (numbers.toy.last) document.querySelector("main").prepend(byId("images"));
if (numbers.images) exploreImages(numbers.images);
