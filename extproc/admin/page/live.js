// Asks for a snapshot every second while the page is looked at, and has the panels drawn that changed.

import { duration } from "./charts.js";
import * as panels from "./panels.js";

const EVERY_MS = 1000;
const STALE_S = 10;
const TOKEN = "extproc-admin-token";
const THEMES = ["system", "light", "dark"];
const PARTS = {
  figures: panels.figures,
  "first-token": panels.firstToken,
  duration: panels.requestDuration,
  outcomes: panels.outcomes,
  caches: panels.caches,
  verdicts: panels.verdicts,
  pools: panels.pools,
  queues: panels.queues,
  spend: panels.spend,
  arms: panels.arms,
  decisions: panels.decisions,
};

const at = (id) => document.getElementById(id);
const text = (id, said) => { if (at(id).textContent !== said) at(id).textContent = said; };
let freshAt = 0; // of this browser's clock, when the newest snapshot was made
let heard = null; // the newest snapshot

async function look() {
  const token = sessionStorage.getItem(TOKEN);
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const answer = await fetch("/api/v1/live", { headers, cache: "no-store", signal: AbortSignal.timeout(5000) });
  if (answer.status === 401) return signIn(token !== null);
  if (!answer.ok) throw new Error((await answer.json()).error.message);
  show(await answer.json());
}

function show(live) {
  // The two clocks may differ: what counts is when a snapshot is seen that was not seen before.
  if (live.at !== heard?.at) freshAt = Date.now();
  at("sign-in").hidden = true;
  at("view").hidden = false;
  for (const [id, draw] of Object.entries(PARTS)) redraw(at(id), draw(live));
  header(live);
  heard = live;
}

function redraw(place, drawn) {
  // What looks the same stays: a selection and a scroll position survive.
  const fresh = document.createElement("div");
  fresh.append(...drawn);
  if (fresh.innerHTML !== place.innerHTML) place.replaceChildren(...fresh.childNodes);
}

function header(live) {
  const { ready, draining, workers, config_version: version } = live.process;
  at("status").dataset.state = draining ? "warn" : !ready ? "bad" : live.degraded.length ? "warn" : "good";
  text("status", draining ? "Draining" : !ready ? "Not every worker is ready" : live.degraded.length ? "Degraded"
    : "Ready");
  const crew = workers === 1 ? "1 worker" : `${workers} workers`;
  text("process", `${crew} · up ${duration(live.at - live.started_at)} · configuration ${version}`);
  const said = panels.notice(live);
  at("notice").hidden = !said;
  text("notice", said);
}

function age(trouble) {
  const old = (Date.now() - freshAt) / 1e3;
  const stale = heard !== null && old > STALE_S;
  document.body.toggleAttribute("data-stale", stale);
  if (heard === null && trouble) {
    at("status").dataset.state = "bad";
    text("status", `No numbers: ${trouble}`);
  } else if (stale) {
    at("status").dataset.state = "bad";
    text("status", "Not answering");
    text("updated", `These numbers are ${duration(old)} old`);
  } else if (heard !== null) {
    text("updated", "Up to date, every second");
  }
}

function signIn(wrong) {
  sessionStorage.removeItem(TOKEN);
  const shown = !at("sign-in").hidden;
  at("sign-in").hidden = false;
  at("view").hidden = true;
  heard = null;
  text("status", "Locked");
  text("sign-in-error", wrong ? "That is not the token." : at("sign-in-error").textContent);
  if (!shown) at("token").focus();
}

async function turn() {
  let trouble = "";
  if (!document.hidden && at("sign-in").hidden) {
    try {
      await look();
    } catch (error) {
      trouble = error.name === "TypeError" ? "the service can't be reached" : error.message;
    }
    age(trouble);
  }
  setTimeout(turn, EVERY_MS);
}

function theme(name) {
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  text("theme", `Theme: ${name}`);
  localStorage.setItem("extproc-theme", name);
}

at("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, at("token").value.trim());
  at("token").value = "";
  look().catch((error) => text("sign-in-error", error.message));
});
at("theme").addEventListener("click", () => {
  const now = document.documentElement.dataset.theme ?? "system";
  theme(THEMES[(THEMES.indexOf(now) + 1) % THEMES.length]);
});
theme(THEMES.includes(localStorage.getItem("extproc-theme")) ? localStorage.getItem("extproc-theme") : "system");
turn();
