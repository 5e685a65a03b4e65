// The sliders of the gallery of heads. The maths is that of kerasoft.ops and
// kerasoft.losses in a few lines of double precision; tests/test_site.py compares them.
(() => {
  const sum = (x) => x.reduce((a, b) => a + b, 0);
  const normalised = (w) => w.map((one) => one / sum(w));
  const logSumExp = (x) => {
    const most = Math.max(...x);
    return most + Math.log(sum(x.map((one) => Math.exp(one - most))));
  };
  const logSoftmax = (x) => x.map((one) => one - logSumExp(x));
  const softmax = (x) => logSoftmax(x).map(Math.exp);
  const gumbel = (x, { noise, temperature }) =>
    x.map((one, k) => (one + noise[k]) / temperature);
  const zScore = (x) => {
    const mean = sum(x) / x.length;
    const variance = sum(x.map((one) => (one - mean) ** 2)) / x.length;
    return x.map((one) => (variance ? (one - mean) / Math.sqrt(variance) : 0));
  };
  // max((alpha - 1) x - theta, 0) ** (1 / (alpha - 1)), with theta by bisection.
  const entmax = (x, alpha) => {
    const y = x.map((one) => (alpha - 1) * one);
    let low = Math.max(...y) - 1;
    let high = Math.max(...y);
    const at = (theta) => y.map((one) => Math.max(one - theta, 0) ** (1 / (alpha - 1)));
    for (let i = 0; i < 60; i++) {
      const middle = (low + high) / 2;
      if (sum(at(middle)) > 1) low = middle;
      else high = middle;
    }
    return normalised(at(low));
  };

  const ofProbabilities = (p, label) => -Math.log(p[label]);
  const ofLogProbabilities = (p, label) => -p[label];
  // The Fenchel-Young loss of entmax: Peters et al. (2019), equation 14.
  const fenchelYoung = (alpha) => (p, label, x) =>
    sum(p.map((one, k) => (one - (k === label)) * x[k])) +
    (1 - sum(p.map((one) => one ** alpha))) / (alpha * (alpha - 1));
  const zLoss = (z, label) => Math.log1p(Math.exp(0.1 * (10 - z[label]))) / 0.1;

  // Of each head, its output and the matched loss of (output, label, logits).
  const HEADS = {
    softmax: [softmax, ofProbabilities],
    log_softmax: [logSoftmax, ofLogProbabilities],
    softmax2: [(x) => normalised(x.map((one) => 2 ** one)), ofProbabilities],
    log_softmax2: [(x) => logSoftmax(x.map((one) => one * Math.LN2)), ofLogProbabilities],
    gumbel_softmax: [(x, at) => softmax(gumbel(x, at)), ofProbabilities],
    log_gumbel_softmax: [(x, at) => logSoftmax(gumbel(x, at)), ofLogProbabilities],
    taylor_softmax: [(x) => normalised(x.map((one) => 1 + one + one ** 2 / 2)), ofProbabilities],
    spherical_softmax: [(x) => normalised(x.map((one) => one ** 2 + 1e-3)), ofProbabilities],
    z_loss: [zScore, zLoss],
    sin_softmax: [(x) => softmax(x.map(Math.sin)), ofProbabilities],
    sparsemax: [(x) => entmax(x, 2), fenchelYoung(2)],
    entmax15: [(x) => entmax(x, 1.5), fenchelYoung(1.5)],
  };

  const STILL = { temperature: 1, noise: [0, 0, 0] };

  /** What a head puts out, and the gradients of its losses by the logits. */
  function compute(name, logits, label, at = STILL) {
    const [output, loss] = HEADS[name];
    const slope = (f) =>
      logits.map((one, k) => {
        const [up, down] = [1e-4, -1e-4].map((step) => {
          const moved = logits.with(k, one + step);
          return f(output(moved, at), label, moved);
        });
        return (up - down) / 2e-4;
      });
    return {
      output: output(logits, at),
      matched: slope(loss),
      asLogits: slope((out) => -logSoftmax(out)[label]),
    };
  }

  const NOISY = new Set(["gumbel_softmax", "log_gumbel_softmax"]);
  const NAMES = ["class 1", "class 2", "class 3"];

  function element(tag, attributes = {}, ...children) {
    const made = Object.assign(document.createElement(tag), attributes);
    made.append(...children);
    return made;
  }

  const slider = (words, min, max, value) => {
    const input = element("input", { type: "range", min, max, step: 0.1, value });
    input.ariaLabel = words;
    return input;
  };

  /** A number with a bar from the middle, of a length in shares of `most`. */
  function bar(value, most) {
    const length = (50 * Math.min(Math.abs(value), most)) / most;
    const drawn = element("span", { className: "bar" });
    drawn.style.width = `${length}%`;
    drawn.style.left = `${value < 0 ? 50 - length : 50}%`;
    const number = element("span", { className: "number" }, value.toFixed(3));
    return element("span", { className: "track" }, drawn, number);
  }

  /** Puts sliders and bars into the element of a head, before its still picture. */
  function enliven(place) {
    const name = place.dataset.head;
    const logits = [1, 0.5, -1].map((x, k) => slider(`logit of ${NAMES[k]}`, -5, 5, x));
    const temperature = slider("temperature", 0.1, 5, 1);
    const label = element("select", { ariaLabel: "label" });
    label.append(...NAMES.map((words, value) => element("option", { value }, words)));
    let noise = STILL.noise;
    const table = element("table", { className: "live" });
    const row = (tag, ...cells) =>
      element("tr", {}, ...cells.map((cell) => element(tag, {}, cell)));

    const shownLogits = logits.map((input, k) =>
      element("label", {}, `${NAMES[k]} `, input, element("output")),
    );
    const shownTemperature = element("label", {}, "temperature ", temperature, element("output"));
    const draw = element("button", { type: "button" }, "draw noise");
    const still = element("button", { type: "button" }, "no noise");

    function show() {
      const x = logits.map((input) => Number(input.value));
      const at = { temperature: Number(temperature.value), noise };
      const { output, matched, asLogits } = compute(name, x, Number(label.value), at);
      [...shownLogits, shownTemperature].forEach((shown) => {
        shown.querySelector("output").value = Number(shown.querySelector("input").value).toFixed(1);
      });
      const most = name === "z_loss" ? 1.5 : name.startsWith("log_") ? 8 : 1;
      table.replaceChildren(
        row("th", "", "output", "gradient, matched", "gradient, as logits"),
        ...NAMES.map((words, k) =>
          row("td", words, bar(output[k], most), bar(matched[k], 1), bar(asLogits[k], 1)),
        ),
      );
    }
    draw.onclick = () => {
      noise = noise.map(() => -Math.log(-Math.log(1 - Math.random())));
      show();
    };
    still.onclick = () => {
      noise = STILL.noise;
      show();
    };
    const controls = element("div", { className: "controls" }, ...shownLogits);
    if (NOISY.has(name)) controls.append(shownTemperature, draw, still);
    controls.append(element("label", {}, "label ", label));
    controls.oninput = show;
    place.prepend(controls, table);
    show();
  }

  window.kerasoftGallery = { HEADS: Object.keys(HEADS), compute };
  for (const place of document.querySelectorAll(".head[data-head]")) enliven(place);
})();
