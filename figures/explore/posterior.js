// The posterior over N points y_j in closed form (Eq. 43), and where the exact flow from (x, σ) ends. All in float64.
"use strict";

// The trial drifts of `optimal.certify`.
const TRIALS = [0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2];

// √(2π) e^{t²/2} Q(t), Q the upper tail of the Gaussian, from above: the erfc of Numerical Recipes is right to 1.2e-7.
function mills(t) {
  if (t < 0) return Math.sqrt(2 * Math.PI) * Math.exp(t * t / 2);
  const z = t / Math.SQRT2, u = 1 / (1 + z / 2);
  const series = [0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807, -0.18628806, 0.09678418, 0.37409196, 1.00002368];
  const exponent = series.reduce((sum, c) => c + u * sum, 0) * u - 1.26551223;
  return 1.000001 * Math.sqrt(Math.PI / 2) * u * Math.exp(exponent);
}

class Points {
  constructor(points) {
    this.size = points.length;
    this.dim = points[0].length;
    this.values = Float64Array.from(points.flat());
    // For every point the first one equal to it: copies win together.
    const seen = new Map();
    this.first = points.map((y, j) => {
      const key = y.join();
      if (!seen.has(key)) seen.set(key, j);
      return seen.get(key);
    });
    this.logits = new Float64Array(this.size);
    const mean = points[0].map((_, d) => points.reduce((sum, y) => sum + y[d], 0) / this.size);
    const square = points.reduce((sum, y) => sum + y.reduce((s, value, d) => s + (value - mean[d]) ** 2, 0), 0);
    this.deviation = Math.sqrt(square / (this.size * this.dim)) || 1;
  }

  // −‖x − y_j‖²/2σ² less the largest of them, into this.logits; returns that largest and its j.
  score(x, sigma) {
    let best = -Infinity, top = 0;
    for (let j = 0; j < this.size; j++) {
      let square = 0;
      for (let d = 0; d < this.dim; d++) square += (x[d] - this.values[j * this.dim + d]) ** 2;
      const logit = -square / (2 * sigma * sigma);
      this.logits[j] = logit;
      if (logit > best) { best = logit; top = j; }
    }
    for (let j = 0; j < this.size; j++) this.logits[j] -= best;
    return [best, top];
  }

  logDensity(x, sigma) {
    const [best] = this.score(x, sigma);
    let total = 0;
    for (let j = 0; j < this.size; j++) total += Math.exp(this.logits[j]);
    return best + Math.log(total) - Math.log(this.size) - this.dim * (0.5 * Math.log(2 * Math.PI) + Math.log(sigma));
  }

  // E[x0 | x], and the posterior probability of the leader with all its copies.
  mean(x, sigma) {
    const top = this.first[this.score(x, sigma)[1]];
    const mean = new Array(this.dim).fill(0);
    let total = 0, lead = 0;
    for (let j = 0; j < this.size; j++) {
      const weight = Math.exp(this.logits[j]);
      total += weight;
      if (this.first[j] === top) lead += weight;
      for (let d = 0; d < this.dim; d++) mean[d] += weight * this.values[j * this.dim + d];
    }
    for (let d = 0; d < this.dim; d++) mean[d] /= total;
    return { mean, top, others: 1 - lead / total };
  }

  posterior(x, sigma) {
    const logDensity = this.logDensity(x, sigma);
    const { mean, top } = this.mean(x, sigma);
    const exps = Array.from(this.logits, Math.exp);
    const total = exps.reduce((a, b) => a + b, 0);
    const weights = exps.map((e) => e / total);
    let entropy = Math.log(total), variance = 0;
    weights.forEach((weight, j) => {
      if (weight > 0) entropy -= weight * this.logits[j];
      for (let d = 0; d < this.dim; d++) variance += weight * (this.values[j * this.dim + d] - mean[d]) ** 2;
    });
    entropy = Math.max(0, entropy);
    return { mean, top, weights, topWeight: weights[top], logDensity, entropy, count: Math.exp(entropy), variance };
  }

  // Whether the exact flow from (x, σ) is certain to end on y_k: S(δ) <= δ for a trial δ, see `optimal.certify`.
  certified(x, sigma, k) {
    const own = this.point(k), u = x.map((v, d) => (v - own[d]) / sigma);
    const copies = this.first.filter((j) => j === this.first[k]).length;
    const others = [];
    for (let j = 0; j < this.size; j++) {
      if (this.first[j] === this.first[k]) continue;
      const apart = own.map((v, d) => v - this.values[j * this.dim + d]), far = Math.hypot(...apart);
      others.push([far / sigma, apart.reduce((sum, v, d) => sum + v * u[d], 0) / far]);
    }
    return TRIALS.some((drift) => {
      let sum = 0;
      for (const [A, along] of others) {
        const c = along - drift;
        sum += Math.exp(-A * A / 2 - A * c) * mills(A + c) / copies;
        if (!(sum <= drift)) return false;
      }
      return true;
    });
  }

  // dx/dlnσ = x − D(x, σ), down in ln σ, by Bogacki and Shampine's pair (1989), local error at most `tolerance` σ.
  // It ends where all other points together weigh less than 1e-12; captured is the first σ at which the end is certain.
  flow(x, sigma, tolerance = 1e-6) {
    const path = [[sigma, ...x]];
    const floor = 1e-6 * this.deviation;
    const slope = (at, lnSigma) => { const { mean } = this.mean(at, Math.exp(lnSigma)); return at.map((v, d) => v - mean[d]); };
    let s = Math.log(sigma), h = 0.05, k1 = slope(x, s), captured = 0;
    for (let tries = 0; tries < 20000; tries++) {
      const { top, others } = this.mean(x, Math.exp(s));
      if (!captured && others < 0.5 && this.certified(x, Math.exp(s), top)) captured = path.at(-1)[0];
      if (others < 1e-12 || Math.exp(s) < floor) return { index: top, captured: captured || (others < 1e-12 ? Math.exp(s) : 0), path };
      const k2 = slope(x.map((v, d) => v - h / 2 * k1[d]), s - h / 2);
      const k3 = slope(x.map((v, d) => v - 3 * h / 4 * k2[d]), s - 3 * h / 4);
      const next = x.map((v, d) => v - h * (2 * k1[d] + 3 * k2[d] + 4 * k3[d]) / 9);
      const k4 = slope(next, s - h);
      const error = h * Math.hypot(...k1.map((v, d) => -5 / 72 * v + k2[d] / 12 + k3[d] / 9 - k4[d] / 8));
      const ratio = error / (tolerance * Math.exp(s - h));
      if (ratio <= 1) { x = next; s -= h; k1 = k4; path.push([Math.exp(s), ...x]); }
      h = Math.min(0.25, h * Math.min(3, Math.max(0.2, 0.9 * (ratio + 1e-12) ** (-1 / 3))));
    }
    return { index: this.mean(x, Math.exp(s)).top, captured: 0, path };
  }

  point(j) { return Array.from(this.values.subarray(j * this.dim, (j + 1) * this.dim)); }
}

if (typeof module !== "undefined") module.exports = { Points };
