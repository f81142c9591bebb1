// Replaces the content of the page when the server has a new version of it. Views, sliders, opened parts and
// the scroll position stay.

const PERIOD = 2000; // milliseconds between two questions
const MOST_FAILURES = 3;

function choices() {
  const pressed = [...document.querySelectorAll(".tabs button[aria-pressed=true]")];
  return {
    views: pressed.map((button) => [button.closest(".card").id, button.dataset.view]),
    steps: [...document.querySelectorAll(".strip")].map((strip) => {
      const slider = strip.querySelector("input");
      const isLast = !slider || slider.value === slider.max;
      return isLast ? null : strip.querySelector("img:not([hidden])").dataset.step;
    }),
    opened: [...document.querySelectorAll("details[open] summary")].map((summary) => summary.textContent),
    scroll: [window.scrollX, window.scrollY],
  };
}

function restore(chosen) {
  for (const [card, view] of chosen.views) {
    const buttons = [...document.querySelectorAll(".tabs button")];
    const same = (button) => button.closest(".card").id === card && button.dataset.view === view;
    const button = buttons.find(same);
    if (button && button.getAttribute("aria-pressed") !== "true") button.click();
  }
  document.querySelectorAll(".strip").forEach((strip, i) => {
    const slider = strip.querySelector("input");
    const images = [...strip.querySelectorAll("img")];
    const at = images.findIndex((image) => image.dataset.step === chosen.steps[i]);
    if (slider && at >= 0) {
      slider.value = at;
      slider.dispatchEvent(new Event("input"));
    }
  });
  for (const summary of document.querySelectorAll("details summary")) {
    summary.parentElement.open = chosen.opened.includes(summary.textContent);
  }
  window.scrollTo(...chosen.scroll);
}

async function replaceContent() {
  const answer = await fetch("/", { cache: "no-store" });
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  const figures = fresh.getElementById("figures");
  if (!figures || !document.getElementById("figures")) {
    window.location.reload(); // from or to a page without charts
    return;
  }
  const chosen = choices();
  document.querySelectorAll(".plot").forEach((plot) => Plotly.purge(plot));
  document.title = fresh.title;
  document.getElementById("figures").textContent = figures.textContent;
  document.querySelector("main").replaceWith(document.adoptNode(fresh.querySelector("main")));
  load();
  restore(chosen);
}

async function ask(failures) {
  try {
    const answer = await fetch("/version", { cache: "no-store" });
    if ((await answer.text()) !== document.querySelector("main").dataset.version) await replaceContent();
    setTimeout(ask, PERIOD, 0);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    if (failures < MOST_FAILURES) {
      setTimeout(ask, PERIOD, failures + 1);
      return;
    }
    const notice = document.createElement("p");
    notice.className = "notice watch";
    notice.textContent = "nelbo watch has ended; this page is no longer refreshed.";
    document.querySelector("main").prepend(notice);
  }
}

setTimeout(ask, PERIOD, 0);
