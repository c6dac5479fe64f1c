// Points on a line: the (σ, x) plane with density, basins and flow lines, and beside it the slice at the chosen σ.
class LineView {
  constructor(toy, points) {
    [this.toy, this.points] = [toy, points];
    [this.low, this.high] = toy.sigmas;
    this.top = toy.centre[0] + toy.reach;
    this.bottom = toy.centre[0] - toy.reach;
    // About evenly spread in probability at the highest σ: quantiles of a logistic law, close to the Gaussian's.
    const starts = Array.from({ length: 33 }, (_, i) => toy.centre[0] + this.high * Math.log((i + 0.5) / (32.5 - i)) / 1.7);
    this.flows = starts.map((x) => this.followed([x], this.high));
    this.background = null;
  }

  // The flow line down to the lowest σ of the view: once captured it is straight, x − y ∝ σ.
  followed(x, sigma) {
    const flow = this.points.flow(x, sigma);
    const end = this.points.point(flow.index)[0];
    const [last, at] = flow.path.at(-1);
    const line = flow.path.filter(([s]) => s >= this.low);
    for (let s = last * 0.9; s > this.low * 0.9; s *= 0.9) line.push([Math.max(s, this.low), end + (at - end) * s / last]);
    return { index: flow.index, captured: flow.captured, line };
  }

  draw(state, flow, post) {
    const height = window.innerWidth < 600 ? 330 : 430;
    const side = byId("toy-side");
    side.style.flex = "0 0 24%";
    const { ctx, width } = sharp(byId("toy-main"), height);
    this.left = 38;
    this.width = width - this.left - 4;
    this.height = height - 40;
    this.a = (sigma) => this.left + this.width * Math.log(this.high / sigma) / Math.log(this.high / this.low);
    this.b = (x) => 4 + this.height * (this.top - x) / (this.top - this.bottom);
    const N = this.points.size;
    ctx.save();
    ctx.beginPath();
    ctx.rect(this.left, 4, this.width, this.height);
    ctx.clip();
    ctx.drawImage(this.density(), this.left, 4, this.width, this.height);
    for (let k = 0; k < this.toy.separatrices[0].length; k++)
      line(ctx, this.toy.border_sigmas.map((s, i) => [this.a(s), this.b(this.toy.separatrices[i][k])]), theme("faint"), 1, [2, 3]);
    for (const { index, line: path } of this.flows)
      line(ctx, path.map(([s, x]) => [this.a(s), this.b(x)]), hue(index, N), 1);
    if (this.toy.border > this.low && this.toy.border < this.high) {
      const at = this.a(this.toy.border);
      line(ctx, [[at, 4], [at, 4 + this.height]], theme("ink"), 1.2, [6, 4]);
      const flip = at > width - 110;
      note(ctx, `border σ = ${level(this.toy.border)}`, at + (flip ? -5 : 5), 18, flip ? "right" : "left");
    }
    line(ctx, flow.line.map(([s, x]) => [this.a(s), this.b(x)]), hue(flow.index, N), 4);
    const [a, b] = [this.a(state.sigma), this.b(state.x[0])];
    line(ctx, [[a, 4], [a, 4 + this.height]], theme("mark"), 1);
    line(ctx, [[a, b], [a, this.b(post.mean[0])]], theme("guess"), 3);
    diamond(ctx, a, this.b(post.mean[0]), 7, theme("guess"));
    dot(ctx, a, b, 9, theme("mark"));
    ctx.restore();
    for (let j = 0; j < N; j++) dot(ctx, width - 5, this.b(this.points.point(j)[0]), 4, hue(j, N));
    for (const tick of logTicks(this.low, this.high, this.a)) {
      line(ctx, [[this.a(tick), 4 + this.height], [this.a(tick), 8 + this.height]], theme("faint"));
      label(ctx, level(tick), clamp(this.a(tick), this.left + 6, width - 14), 20 + this.height);
    }
    for (const tick of linearTicks(this.bottom, this.top)) label(ctx, level(tick), this.left - 5, clamp(this.b(tick), 10, this.height - 2), "right", theme("faint"), "middle");
    label(ctx, "noise level σ, from noise to data →", this.left + this.width / 2, height - 4);
    label(ctx, "x", 2, 14, "left");
    this.slice(side, height, state, post);
  }

  // The density of noisy data at the chosen σ, and the weights at the points, on the same x axis.
  slice(canvas, height, state, post) {
    const { ctx, width } = sharp(canvas, height);
    const room = width - 6, steps = 220;
    const xs = Array.from({ length: steps + 1 }, (_, i) => this.bottom + (this.top - this.bottom) * i / steps);
    const p = xs.map((x) => Math.exp(this.points.logDensity([x], state.sigma)));
    const peak = Math.max(...p);
    const outline = xs.map((x, i) => [2 + room * 0.95 * p[i] / peak, this.b(x)]);
    ctx.beginPath();
    [[2, this.b(this.bottom)], ...outline, [2, this.b(this.top)]].forEach(([a, b], i) => (i ? ctx.lineTo(a, b) : ctx.moveTo(a, b)));
    ctx.fillStyle = `rgba(${theme("cloud")}, 0.35)`;
    ctx.fill();
    post.weights.forEach((weight, j) => {
      ctx.fillStyle = hue(j, this.points.size);
      ctx.fillRect(2, this.b(this.points.point(j)[0]) - 3, Math.max(1, weight * room), 6);
    });
    line(ctx, [[0, this.b(state.x[0])], [width, this.b(state.x[0])]], theme("mark"), 1);
    diamond(ctx, width - 8, this.b(post.mean[0]), 6, theme("guess"));
    label(ctx, "density at σ", width / 2, 20 + this.height);
    label(ctx, "bars: weights", width / 2, height - 4);
  }

  // p(x; σ) over the plane, each column over its own maximum.
  density() {
    const color = theme("cloud");
    if (this.background?.color === color) return this.background.canvas;
    const [columns, rows] = [200, 200];
    const canvas = Object.assign(document.createElement("canvas"), { width: columns, height: rows });
    const ctx = canvas.getContext("2d"), image = ctx.createImageData(columns, rows);
    const rgb = color.split(",").map(Number);
    for (let i = 0; i < columns; i++) {
      const sigma = this.high * (this.low / this.high) ** ((i + 0.5) / columns);
      const logs = Array.from({ length: rows }, (_, k) => this.points.logDensity([this.top - (this.top - this.bottom) * (k + 0.5) / rows], sigma));
      const most = Math.max(...logs);
      logs.forEach((value, k) => image.data.set([...rgb, 150 * Math.exp(value - most)], 4 * (k * columns + i)));
    }
    ctx.putImageData(image, 0, 0);
    this.background = { color, canvas };
    return canvas;
  }

  dragged(a, b) {
    const sigma = this.high * (this.low / this.high) ** ((a - this.left) / this.width);
    return { sigma: clamp(sigma, this.low, this.high), x: [clamp(this.top - (this.top - this.bottom) * (b - 4) / this.height, this.bottom, this.top)] };
  }
}
