"use strict";
const at = (id) => document.getElementById(id);
const made = (name, kind, text) => {
  const element = document.createElement(name);
  if (kind) element.className = kind;
  // Text only: what a user or a model wrote is never read as HTML.
  if (text !== undefined) element.textContent = text;
  return element;
};

function bars(probabilities) {
  const rows = Object.entries(probabilities).sort((a, b) => b[1] - a[1]).slice(0, 12);
  return rows.map(([label, value], place) => {
    const row = made("div", place === 0 ? "row best" : "row");
    const bar = made("span", "bar");
    const filled = made("i");
    filled.style.width = `${(100 * value).toFixed(1)}%`;
    bar.append(filled);
    row.append(made("span", "", label), bar, made("span", "number", `${(100 * value).toFixed(1)} %`));
    return row;
  });
}

function said(answer) {
  if (answer.probabilities) return bars(answer.probabilities);
  if (answer.spans) return answer.spans.map((span) => made("p", "text", JSON.stringify(span)));
  // An answer out of a context has a score too.
  if (answer.text !== undefined) return [made("p", "text", answer.text || "no answer")];
  return [made("p", "text", answer.score.toFixed(3))];
}

function show(name, answered) {
  const section = at(name);
  section.hidden = !answered;
  if (!answered) return;
  section.querySelector(".time").textContent = `${answered.milliseconds.toFixed(1)} ms`;
  section.querySelector(".said").replaceChildren(...said(answered.answers[0]));
}

async function ask() {
  const problem = at("problem");
  problem.textContent = "";
  const text = at("text").value;
  const inputs = [at("second").hidden ? text : [text, at("pair").value]];
  const headers = { "Content-Type": "application/json" };
  if (at("key").value) headers.Authorization = `Bearer ${at("key").value}`;
  try {
    const response = await fetch("v1/compare", { method: "POST", headers, body: JSON.stringify({ inputs }) });
    const content = await response.json();
    if (!response.ok) {
      if (response.status === 401) at("secret").hidden = false;
      if (/two texts/.test(content.error.message)) at("second").hidden = false;
      problem.textContent = content.error.message;
      return;
    }
    show("student", content.student);
    show("teacher", content.teacher);
    const agreement = content.agreement;
    at("agreement").hidden = !agreement;
    if (agreement) at("agreement").textContent = `Same answer in ${agreement.same} of ${agreement.seen} so far.`;
  } catch (error) {
    problem.textContent = `No answer: ${error.message}`;
  }
}

at("ask").addEventListener("submit", (event) => { event.preventDefault(); ask(); });
at("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); at("ask").requestSubmit(); }
});
