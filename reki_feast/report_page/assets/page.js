// What the parts share: the data, elements, numbers; the theme and the print button.
// Texts are others': they become text nodes, and nothing else.
const DATA = JSON.parse(document.getElementById("report-data").textContent);
const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function element(name, given = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(given)) {
    if (key === "class") made.className = value || "";
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((one) => one !== null && one !== undefined).map((one) => (one instanceof Node ? one : String(one))));
  return made;
}

function drawing(name, given = {}) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(given)) made.setAttribute(key, value);
  return made;
}

const number = (value) => (typeof value === "number" ? value.toLocaleString("en", { maximumSignificantDigits: Number.isInteger(value) ? 21 : 5 }) : "");
const count = (value, what) => `${number(value)} ${what}${value === 1 ? "" : "s"}`;
const percent = (value) => (typeof value === "number" ? `${Math.round(100 * value)} %` : "");

function day(text) {
  if (!text) return "";
  const [date, time] = text.split("T");
  return time && !time.startsWith("00:00:00") ? `${date} ${time.slice(0, 5)}` : date;
}

function shown(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "boolean") return value ? "yes" : "no";
  return typeof value === "number" ? number(value) : String(value);
}

// A table of objects; a column is [heading, field or function].
function tableOf(rows, columns) {
  const isNumber = ([, get]) => typeof rows[0][get] === "number";
  const head = element("tr", {}, ...columns.map((one) => element("th", isNumber(one) ? { class: "n" } : {}, one[0])));
  const body = rows.map((row) =>
    element("tr", {}, ...columns.map((one) => {
      const value = typeof one[1] === "function" ? one[1](row) : shown(row[one[1]]);
      return element("td", { class: isNumber(one) ? "n" : value.length <= 16 ? "short" : null }, value);
    })),
  );
  return element("div", { class: "scroll" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...body)));
}

const themeButton = byId("theme");
const systemDark = window.matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme || (systemDark.matches ? "dark" : "light")) === "dark";
const nameTheme = () => { themeButton.textContent = isDark() ? "Light" : "Dark"; };
themeButton.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  nameTheme();
});
systemDark.addEventListener("change", nameTheme);
nameTheme();
byId("print").addEventListener("click", () => window.print());
