// The section of points: state, sliders, numbers.
function exploreToy(toy) {
  const points = new Points(toy.points), N = points.size, dim = points.dim;
  const view = dim === 1 ? new LineView(toy, points) : new PlaneView(toy, points);
  const [low, high] = toy.sigmas;
  const state = {
    sigma: clamp(2 * (toy.border || high / 5), low, high),
    x: toy.centre.map((c, d) => c + toy.reach * (d ? 0.35 : 0.25)),
  };
  const slider = byId("toy-sigma");
  byId("toy-title").textContent = `${toy.dataset}: ${N.toLocaleString("en")} points ${dim === 1 ? "on a line" : "in the plane"}`;
  byId("toy-intro").textContent = dim === 1
    ? "Drag the round dot, or use the sliders: from it the exact flow runs to one of the points (thick line), while the guess (diamond) is a blend that lies between them."
    : "Drag the round dot, or use the sliders: from it the exact flow runs to one of the points (thick line), while the guess (diamond) is a blend; points grow with their weight.";
  byId("toy-size").textContent = N.toLocaleString("en");
  byId("toy-fine").textContent = `${toy.dataset}: N = ${N}, fingerprint ${toy.fingerprint}; ${toy.source || toy.licence}. `
    + `Evaluated in this page in float64${toy.border ? `; border σ = ${level(toy.border)}` : ""}.`;
  byId("toy-legend").innerHTML =
    '<span class="swatch" style="background:var(--mark)"></span>noisy x <span class="swatch" style="background:var(--guess)"></span>guess E[x₀ | x]'
    + '<span class="swatch" style="background:rgba(var(--cloud),.5)"></span>density of noisy data, over its largest value at σ'
    + (dim === 1 ? "; thin lines: the flow, coloured by where it ends; dotted: borders between basins" : "; thin lines: the flow from a grid, coloured by where it ends");

  const inputs = state.x.map((_, d) => {
    const name = dim === 1 ? "x" : `x${"₁₂"[d]}`, id = `toy-x${dim === 1 ? "" : d + 1}`;
    const field = document.createElement("span");
    field.innerHTML = `<label for="${id}">${name} = <data id="${id}-value"></data></label><input id="${id}" type="range" min="0" max="1000" step="1">`;
    byId("toy-axes").append(field);
    const input = field.querySelector("input");
    input.addEventListener("input", () => { state.x[d] = toy.centre[d] + toy.reach * (input.value / 500 - 1); request(); });
    return input;
  });

  function update() {
    const post = points.posterior(state.x, state.sigma), flow = view.followed(state.x, state.sigma);
    slider.value = Math.round(1000 * Math.log(high / state.sigma) / Math.log(high / low));
    slider.setAttribute("aria-valuetext", level(state.sigma));
    show("toy-sigma-value", state.sigma);
    inputs.forEach((input, d) => {
      input.value = Math.round(500 * ((state.x[d] - toy.centre[d]) / toy.reach + 1));
      input.setAttribute("aria-valuetext", readable(state.x[d], 3));
      show(`${input.id}-value`, state.x[d], 3);
    });
    show("toy-mean", post.mean);
    show("toy-landing", points.point(flow.index));
    byId("toy-decided").textContent = flow.captured ? "" : "(on a border: either side)";
    byId("toy-captured").value = flow.captured;
    byId("toy-captured").textContent = flow.captured >= state.sigma ? "now: nothing changes it any more" : flow.captured ? `from σ = ${level(flow.captured)} on` : "never: x lies on a border";
    show("toy-count", post.count, 3);
    show("toy-entropy", post.entropy);
    show("toy-density", post.logDensity);
    show("toy-spread", Math.sqrt(post.variance));
    weights(post);
    view.draw(state, flow, post);
    byId("toy-main").setAttribute("aria-label", `noisy x ${state.x.map((v) => readable(v, 2))} at σ ${level(state.sigma)}: guess ${post.mean.map((v) => readable(v, 2))}, landing ${points.point(flow.index).map((v) => readable(v, 2))}`);
  }

  // All weights where they are few, else the largest five.
  function weights(post) {
    const order = [...post.weights.keys()];
    const shown = N <= 10 ? order : order.sort((i, j) => post.weights[j] - post.weights[i]).slice(0, 5);
    byId("toy-weights").innerHTML = shown.map((j) =>
      `<tr><td>${points.point(j).map((v) => readable(v, 2)).join(", ")}</td>`
      + `<td><data class="weight" value="${post.weights[j]}">${(100 * post.weights[j]).toFixed(1)}%</data></td>`
      + `<td><div class="bar" style="width:${100 * post.weights[j]}%;background:${hue(j, N)}"></div></td></tr>`).join("");
  }

  const request = redrawn(update);
  slider.addEventListener("input", () => { state.sigma = high * (low / high) ** (slider.value / 1000); request(); });
  draggable(byId("toy-main"), (a, b) => { Object.assign(state, view.dragged(a, b)); request(); });
  update();
}

exploreToy(numbers.toy);
