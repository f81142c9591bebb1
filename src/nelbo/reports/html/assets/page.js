"use strict";
// Draws the figures in the colours of the page, and again when the page changes from light to dark.

let figures;
// names may contain dollar signs, which plotly would take for formulas
const config = { responsive: true, displaylogo: false, typesetMath: false };

// Buttons in the corner of a chart, shown while the pointer is on it: save it as PNG or SVG.
function saveButtons(plot) {
  const filename = plot.dataset.card + "_" + plot.dataset.view.replace(/[^A-Za-z0-9]+/g, "_");
  const button = (format, icon) => ({
    name: format,
    title: "Save as " + format.toUpperCase(),
    icon,
    click: (shown) => Plotly.downloadImage(shown, { format, filename, scale: format === "png" ? 3 : 1 }),
  });
  return [[button("png", Plotly.Icons.camera), button("svg", Plotly.Icons.disk)]];
}

function theme(layout) {
  const css = getComputedStyle(document.body);
  const colour = (name) => css.getPropertyValue(name).trim();
  const narrow = window.innerWidth < 600;
  const changes = {
    paper_bgcolor: colour("--card"),  // a saved image needs one
    plot_bgcolor: "rgba(0,0,0,0)",
    "modebar.bgcolor": "rgba(0,0,0,0)",
    "modebar.color": colour("--quiet"),
    "modebar.activecolor": colour("--ink"),
    "font.family": css.fontFamily,
    "font.size": narrow ? 11 : 12.5,
    "font.color": colour("--quiet"),
    "legend.font.color": colour("--ink"),
    "legend.bgcolor": "rgba(0,0,0,0)",
    "hoverlabel.bgcolor": colour("--card"),
    "hoverlabel.bordercolor": colour("--line"),
    "hoverlabel.font.color": colour("--ink"),
  };
  for (const axis of Object.keys(layout).filter((key) => /^[xy]axis/.test(key))) {
    changes[axis + ".gridcolor"] = colour("--grid");
    changes[axis + ".linecolor"] = colour("--line");
    changes[axis + ".tickcolor"] = colour("--line");
  }
  return changes;
}

function set(object, path, value) {
  const keys = path.split(".");
  const last = keys.pop();
  let node = object;
  for (const key of keys) node = node[key] = node[key] || {};
  node[last] = value;
}

// A legend has one entry a row on a phone: the plot grows with it, and keeps the height of its axes.
function height(data) {
  const entries = data.filter((trace) => trace.name && trace.showlegend !== false).length;
  return window.innerWidth < 600 && entries > 2 ? 270 + 20 * entries + "px" : "";
}

function draw(plot) {
  const { data, layout } = figures[plot.dataset.card][plot.dataset.view];
  for (const [path, value] of Object.entries(theme(layout))) set(layout, path, value);
  plot.style.height = height(data);
  return Plotly.react(plot, data, layout, { ...config, modeBarButtons: saveButtons(plot) });
}

function visible() {
  return [...document.querySelectorAll(".plot:not([hidden])")];
}

function drawVisible() {
  visible().forEach(draw);
}

// Called once, and again by a page that replaces its content.
function load() {
  figures = JSON.parse(document.getElementById("figures").textContent);
  for (const button of document.querySelectorAll(".tabs button")) {
    button.addEventListener("click", () => {
      const card = button.closest(".card");
      for (const other of card.querySelectorAll(".tabs button")) {
        other.setAttribute("aria-pressed", String(other === button));
      }
      for (const plot of card.querySelectorAll(".plot")) {
        plot.hidden = plot.dataset.view !== button.dataset.view;
        if (!plot.hidden) draw(plot);
      }
    });
  }

  for (const strip of document.querySelectorAll(".strip")) {
    const slider = strip.querySelector("input");
    slider?.addEventListener("input", () => {
      strip.querySelectorAll("img").forEach((image, i) => {
        image.hidden = i !== Number(slider.value);
        if (!image.hidden) strip.querySelector("output").textContent = "step " + image.dataset.step;
      });
    });
  }
  drawVisible();
}

load();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawVisible);
matchMedia("print").addEventListener("change", drawVisible);
