// Points in the plane: density of the noisy data at the chosen σ, flow lines from there, and the x that is dragged.
class PlaneView {
  constructor(toy, points) {
    [this.toy, this.points] = [toy, points];
    this.side = clamp(Math.round(Math.sqrt(4e5 / points.size)), 24, 110);
    const across = points.size > 400 ? 5 : 9;
    this.starts = [];
    for (let i = 0; i < across; i++)
      for (let k = 0; k < across; k++)
        this.starts.push([i, k].map((at, d) => toy.centre[d] + toy.reach * (2 * (at + 0.5) / across - 1)));
    this.known = { sigma: null, flows: [] };
  }

  followed(x, sigma) {
    const { index, captured, path } = this.points.flow(x, sigma, this.points.size > 200 ? 1e-4 : 1e-6);
    return { index, captured, line: [...path.map(([, ...at]) => at), this.points.point(index)] };
  }

  draw(state, flow, post) {
    const size = Math.min(byId("toy-canvases").clientWidth, 620);
    const canvas = byId("toy-main");
    canvas.style.maxWidth = `${size}px`;
    byId("toy-side").style.display = "none";
    const { ctx, width } = sharp(canvas, size);
    const [cx, cy] = this.toy.centre, reach = this.toy.reach, N = this.points.size;
    this.width = width;
    const at = ([x, y]) => [width * (x - cx + reach) / (2 * reach), width * (cy + reach - y) / (2 * reach)];
    ctx.drawImage(this.density(state.sigma), 0, 0, width, width);
    if (this.known.sigma !== state.sigma)
      this.known = { sigma: state.sigma, flows: this.starts.map((x) => this.followed(x, state.sigma)) };
    for (const { index, line: path } of this.known.flows) line(ctx, path.map(at), hue(index, N), 1);
    for (let j = 0; j < N; j++) dot(ctx, ...at(this.points.point(j)), 2.5 + 8 * Math.sqrt(post.weights[j]), hue(j, N));
    line(ctx, flow.line.map(at), hue(flow.index, N), 4);
    line(ctx, [at(state.x), at(post.mean)], theme("guess"), 3);
    diamond(ctx, ...at(post.mean), 8, theme("guess"));
    dot(ctx, ...at(state.x), 9, theme("mark"));
    ctx.strokeStyle = theme("rule");
    ctx.strokeRect(0.5, 0.5, width - 1, width - 1);
    const inside = (place) => place > 24 && place < width - 30;
    for (const place of linearTicks(cx - reach, cx + reach).map((tick) => [at([tick, cy])[0], tick]))
      if (inside(place[0])) label(ctx, level(place[1]), place[0], width - 6);
    for (const place of linearTicks(cy - reach, cy + reach).map((tick) => [at([cx, tick])[1], tick]))
      if (inside(place[0])) label(ctx, level(place[1]), 5, place[0], "left", theme("faint"), "middle");
    label(ctx, "x₁", width - 6, width - 6, "right");
    label(ctx, "x₂", 5, 14, "left");
  }

  density(sigma) {
    const { side } = this, { centre: [cx, cy], reach } = this.toy;
    const canvas = Object.assign(document.createElement("canvas"), { width: side, height: side });
    const ctx = canvas.getContext("2d"), image = ctx.createImageData(side, side);
    const rgb = theme("cloud").split(",").map(Number), logs = [];
    for (let k = 0; k < side; k++)
      for (let i = 0; i < side; i++)
        logs.push(this.points.logDensity([cx + reach * (2 * (i + 0.5) / side - 1), cy - reach * (2 * (k + 0.5) / side - 1)], sigma));
    const most = logs.reduce((a, b) => Math.max(a, b));
    logs.forEach((value, k) => image.data.set([...rgb, 150 * Math.exp(value - most)], 4 * k));
    ctx.putImageData(image, 0, 0);
    return canvas;
  }

  dragged(a, b) {
    const { centre: [cx, cy], reach } = this.toy;
    const share = (v) => 2 * clamp(v / this.width, 0, 1) - 1;
    return { x: [cx + reach * share(a), cy - reach * share(b)] };
  }
}
