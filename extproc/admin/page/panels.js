// What each part of the page shows of a snapshot (`Live` in /openapi.json), its empty states included.

import { UNKNOWN, bytes, compact, duration, el, histogram, meter, money, percent, spark, table } from "./charts.js";

const empty = (text) => el("p", { class: "empty" }, text);
const last = (column) => (column.length ? column.at(-1) : null);
const NUMBER = "number";

function figure(name, value, unit, note, times, column) {
  const seen = column.filter((one) => one !== null);
  const drawn = seen.length
    ? spark(times, column, `${name}: now ${value} ${unit}, highest ${compact(Math.max(...seen))}`)
    : el("p", { class: "note" }, "nothing yet");
  return el("div", { class: "figure" }, el("h2", {}, name), el("p", { class: "value" }, value, el("span", {}, unit)),
    el("p", { class: "note" }, note), drawn);
}

export function figures(live) {
  const past = live.history;
  const rate = (column) => compact(last(column) ?? 0);
  const quantiles = (one) => (one.p50_s === null ? "nothing in the last minute" : `median ${duration(one.p50_s)}`);
  return [
    figure("Requests", rate(past.requests), "/s", `${live.in_flight} in flight`, past.at, past.requests),
    figure("Refused", rate(past.rejected), "/s", "by a policy or a limit", past.at, past.rejected),
    figure("Failed", rate(past.failed), "/s", "upstream or here", past.at, past.failed),
    figure("Tokens in", rate(past.tokens_in), "/s", "prompts", past.at, past.tokens_in),
    figure("Tokens out", rate(past.tokens_out), "/s", "answers", past.at, past.tokens_out),
    figure("First token, p95", duration(live.first_token.p95_s), "", quantiles(live.first_token), past.at,
      past.first_token_p95_s),
    figure("Duration, p95", duration(live.duration.p95_s), "", quantiles(live.duration), past.at, past.duration_p95_s),
    figure("Answered by a cache", percent(last(past.cache_hits)), "", `${compact(live.saved_tokens)} tokens saved`,
      past.at, past.cache_hits),
  ];
}

function distribution(name, one) {
  if (one.p50_s === null) return [empty("No requests in the last minute.")];
  const shown = [["median", one.p50_s], ["p95", one.p95_s], ["p99", one.p99_s]];
  const list = el("dl", { class: "quantiles" },
    ...shown.map(([label, value]) => el("div", {}, el("dt", {}, label), el("dd", {}, duration(value)))));
  const said = shown.map(([label, value]) => `${label} ${duration(value)}`).join(", ");
  return [list, histogram(one.bounds_s, one.counts, `${name}: ${said}`)];
}

export const firstToken = (live) => distribution("Time to first token", live.first_token);
export const requestDuration = (live) => distribution("Request duration", live.duration);

function bars(items) {
  const total = items.reduce((sum, [, count]) => sum + count, 0);
  return el("ul", { class: "bars" }, ...items.map(([name, count, tone]) => el("li", {},
    el("div", { class: "name" }, el("span", {}, name),
      el("span", {}, `${compact(count)} · ${percent(total ? count / total : 0)}`)),
    meter(total ? count / total : 0, tone))));
}

const ENDINGS = { completed: "good", rejected: "warn", cancelled: "", upstream_error: "bad", internal_error: "bad" };

export function outcomes(live) {
  if (!live.outcomes.length) return [empty("No requests in the last minute.")];
  return [bars(live.outcomes.map((one) => [words(one.termination), one.count, ENDINGS[one.termination] ?? ""]))];
}

const LOOKUPS = { hit: "good", semantic: "good", failed: "bad" };

export function caches(live) {
  if (!live.lookups.length) return [empty("No cache was asked in the last minute.")];
  return ["exact", "semantic"].flatMap((level) => {
    const own = live.lookups.filter((one) => one.level === level);
    if (!own.length) return [];
    return [el("h3", { class: "muted" }, level),
      bars(own.map((one) => [one.result === "semantic" ? "hit" : one.result, one.count, LOOKUPS[one.result] ?? ""]))];
  });
}

export function verdicts(live) {
  if (!live.verdicts.length) return [empty("Every request passed every policy so far.")];
  return [table("Verdicts of policies",
    ["Policy", "Verdict", "Reason", "Mode", ["Last minute", NUMBER], ["Since start", NUMBER]],
    live.verdicts.map((one) => [one.policy, words(one.verdict), words(one.reason) || UNKNOWN, one.mode,
      [compact(one.recent), NUMBER], [compact(one.total), NUMBER]]))];
}

function pressure(value) {
  if (value === null) return el("span", { class: "muted" }, "not known");
  const tone = value >= 0.85 ? "bad" : value >= 0.6 ? "warn" : "good";
  return el("div", { class: "gauge" }, meter(value, tone), el("span", {}, percent(value)));
}

export function pools(live) {
  const rows = live.pools.flatMap((pool) => pool.endpoints.map((one, at) => [
    at ? "" : el("span", {}, pool.name, el("small", {}, `${pool.model} · ${pool.dialect}`)),
    at ? "" : pool.measured ? pressure(pool.pressure) : el("span", { class: "muted" }, "not measured"),
    [at ? "" : pool.measured ? `${pool.level}` : UNKNOWN, NUMBER],
    one.cluster,
    [`${one.weight}`, NUMBER],
    one.address,
    pool.measured ? pressure(one.pressure) : UNKNOWN,
    [compact(one.queued), NUMBER],
    [compact(one.running), NUMBER],
    [percent(one.gpu), NUMBER],
    [percent(one.kv_cache), NUMBER],
    [one.age_s === null ? UNKNOWN : duration(one.age_s), `${NUMBER} late`],
  ]));
  return [table("Pools and their servers",
    ["Pool", "Pressure", ["Level", NUMBER], "Cluster", ["Weight", NUMBER], "Server", "Its pressure",
      ["Queued", NUMBER], ["Running", NUMBER], ["GPU", NUMBER], ["KV cache", NUMBER], ["Heard", NUMBER]], rows)];
}

export function queues(live) {
  if (!live.queues.length) return [empty("No pool has a line: policies.admit gives it one.")];
  const waits = live.waits.filter((one) => one.p50_s !== null);
  const lines = table("Lines before pools",
    ["Pool", "Class", ["At work", NUMBER], ["Tokens", NUMBER], ["Waiting", NUMBER], ["Let in at once", NUMBER],
      ["After a wait", NUMBER], ["Sent away", NUMBER]],
    live.queues.map((one, at) => [live.queues[at - 1]?.pool === one.pool ? "" : one.pool, one.priority,
      [compact(one.requests), NUMBER], [compact(one.tokens), NUMBER], [compact(one.waiting), NUMBER],
      [compact(one.at_once), NUMBER], [compact(one.waited), NUMBER], [compact(one.refused), NUMBER]]));
  if (!waits.length) return [lines, empty("Nobody waited in the last minute.")];
  return [lines, table("Waits of the last minute",
    ["Class", ["Wait, median", NUMBER], ["Wait, p95", NUMBER], ["Place in line, p95", NUMBER]],
    waits.map((one) => [one.priority, [duration(one.p50_s), NUMBER], [duration(one.p95_s), NUMBER],
      [compact(one.position_p95), NUMBER]]))];
}

export function spend(live) {
  if (!live.recording) return [empty("Spend is known with the ledger only: set ledger.enabled.")];
  if (!live.spend.length) return [empty("Nothing was used since this service started.")];
  const cost = (one) => Object.entries(one.cost).map(([currency, amount]) => money(amount, currency)).join(" + ");
  const highest = Math.max(...live.spend.map((one) => Math.max(0, ...Object.values(one.cost))), 1e-12);
  return [table("Spend by team", ["Team", "", ["Cost", NUMBER], ["Tokens", NUMBER], ["Requests", NUMBER]],
    live.spend.map((one) => [one.team || "(not identified)",
      meter(Math.max(0, ...Object.values(one.cost)) / highest), [cost(one) || UNKNOWN, NUMBER],
      [compact(one.tokens), NUMBER], [compact(one.requests), NUMBER]]))];
}

export function arms(live) {
  if (!live.arms.length) return [empty("No request was part of an experiment.")];
  return [table("Experiments and their arms",
    ["Experiment", "Arm", ["Requests", NUMBER], ["Completed", NUMBER], ["95 % interval", NUMBER],
      ["First token, median", NUMBER]],
    live.arms.map((one) => [one.experiment, one.arm, [compact(one.requests), NUMBER],
      [percent(one.completed), NUMBER], [`${percent(one.low)} to ${percent(one.high)}`, NUMBER],
      [duration(one.first_token_p50_s), NUMBER]]))];
}

const TONES = { completed: "good-text", rejected: "warn-text", upstream_error: "bad-text", internal_error: "bad-text" };

export function decisions(live) {
  if (!live.recording) return [empty("Recent decisions are known with the ledger only: set ledger.enabled.")];
  if (!live.decisions.length) return [empty("No request yet.")];
  return [table("Recent decisions, the newest first",
    ["Time", "Team", "Caller", "Model", "Pool", ["Status", NUMBER], "End", "Reason", "Cache", ["Tokens in", NUMBER],
      ["out", NUMBER], ["First token", NUMBER], ["Duration", NUMBER]],
    live.decisions.map((one) => [clock(one.time), one.team || UNKNOWN, one.principal || UNKNOWN, one.model || UNKNOWN,
      one.arm ? `${one.pool} (${one.arm})` : one.pool || UNKNOWN, [one.status ? `${one.status}` : UNKNOWN, NUMBER],
      [words(one.termination), TONES[one.termination] ?? ""], words(one.reason) || UNKNOWN, one.cache || UNKNOWN,
      [compact(one.prompt_tokens), NUMBER], [compact(one.completion_tokens), NUMBER],
      [milliseconds(one.ttft_ms), NUMBER], [milliseconds(one.duration_ms), NUMBER]]))];
}

export function notice(live) {
  const said = [];
  if (live.process.draining) said.push("This service is draining: it takes no new requests.");
  if (live.degraded.length) said.push(`Doing without a dependency: ${live.degraded.join(", ")}.`);
  if (live.ledger_waiting_bytes > 1 << 20) {
    said.push(`${bytes(live.ledger_waiting_bytes)} of usage have not reached the ledger; spend lags behind.`);
  }
  return said.join(" ");
}

const words = (label) => label.replaceAll("_", " ");
const milliseconds = (value) => (value === null ? UNKNOWN : duration(value / 1e3));
const clock = (seconds) => new Date(seconds * 1e3).toLocaleTimeString(undefined, { hour12: false });
