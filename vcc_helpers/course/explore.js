"use strict";
for (const figure of document.querySelectorAll(".vcc-explore:not([data-ready])")) {
  figure.dataset.ready = "yes";
  const caption = figure.querySelector("figcaption"), told = caption.querySelector("output");
  const add = (parent, tag, properties) =>
    parent.appendChild(Object.assign(document.createElement(tag), properties));
  if (figure.dataset.curves) { // a slider through computed results
    const { name, ticks, at, kinds } = JSON.parse(figure.dataset.curves);
    const panels = [...figure.querySelectorAll(".panel")].map(panel => ({
      line: panel.querySelector(".at"),
      series: [...panel.querySelectorAll("g.series")].map((g, i) => ({
        points: JSON.parse(g.dataset.points), dot: g.querySelector("circle"),
        out: panel.querySelectorAll("output")[i],
      })),
    }));
    const slider = document.createElement("input");
    Object.assign(slider, { type: "range", min: 0, max: ticks.length - 1, step: 1, value: at });
    slider.setAttribute("aria-label", name);
    caption.append(" ", slider);
    const move = () => {
      told.value = ticks[slider.value];
      slider.setAttribute("aria-valuetext", ticks[slider.value]);
      for (const { line, series } of panels) for (const { points, dot, out } of series) {
        const [x, y, value] = points[slider.value];
        for (const end of ["x1", "x2"]) line.setAttribute(end, x);
        dot.setAttribute("cx", x);
        dot.setAttribute("cy", y);
        out.value = value;
      }
    };
    slider.addEventListener("input", move);
    if (kinds.length > 1) kinds.forEach(kind => {
      const label = add(caption, "label", {});
      const box = add(label, "input", { type: "checkbox", checked: true });
      label.append(kind);
      box.addEventListener("change", () => figure.querySelectorAll(".series").forEach(one =>
        one.dataset.kind === kind && one.classList.toggle("off", !box.checked)));
    });
  } else { // a prediction that is moved among real effects
    const { names, real, own, reach, at } = JSON.parse(figure.dataset.prediction);
    const svg = figure.querySelector("svg"), cross = svg.querySelector(".pred");
    const body = figure.querySelector("tbody");
    svg.tabIndex = 0;
    svg.setAttribute("role", "application");
    add(caption, "div", { textContent: "Click or drag in the figure, or use the arrow keys." });
    told.setAttribute("aria-live", "polite");
    const show = () => {
      const [x, y] = [150 + 150 * at[0] / reach, 150 - 150 * at[1] / reach];
      cross.setAttribute("d", `M${x} ${y}m-6 0h12m-6 -6v12`);
      const far = real.map(effect => Math.abs(effect[0] - at[0]) + Math.abs(effect[1] - at[1]));
      const order = names.map((_, i) => i).sort((i, j) => far[i] - far[j] || i - j);
      told.value = (1 - order.indexOf(own) / names.length).toFixed(3);
      body.replaceChildren(...order.map(i => {
        const row = document.createElement("tr");
        if (i === own) row.className = "own";
        add(row, "th", { scope: "row", textContent: names[i] });
        add(row, "td", { textContent: far[i].toFixed(3) });
        return row;
      }));
    };
    const clip = value => Math.max(-reach, Math.min(reach, value));
    const to = event => {
      const box = svg.getBoundingClientRect();
      at[0] = clip((2 * (event.clientX - box.left) / box.width - 1) * reach);
      at[1] = clip((1 - 2 * (event.clientY - box.top) / box.height) * reach);
      show();
    };
    svg.addEventListener("pointerdown", event => { svg.setPointerCapture(event.pointerId); to(event); });
    svg.addEventListener("pointermove", event => { if (event.buttons) to(event); });
    svg.addEventListener("keydown", event => {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
      if (!(event.key in step)) return;
      event.preventDefault();
      step[event.key].forEach((by, i) => { at[i] = clip(at[i] + by * reach / 20); });
      show();
    });
    show();
  }
}
