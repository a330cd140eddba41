"""The HTML page that shows an OpenAPI document. It is one file and loads only that document."""

import base64
import hashlib
import html

from .response import Response

_STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8882;--key:#1d4ed8}
@media(prefers-color-scheme:dark){:root{--key:#8ab4ff}a{color:var(--key)}}
body{background:Canvas;color:CanvasText}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{margin-bottom:0}h2{font-size:1rem;margin:2rem 0 .5rem;text-transform:capitalize}
details{border:1px solid var(--line);border-radius:6px;margin:.5rem 0}
summary{cursor:pointer;padding:.5rem .75rem}
details>div{padding:.25rem .75rem .75rem;border-top:1px solid var(--line)}
code,pre,textarea,input{font:13px/1.45 ui-monospace,monospace}
pre{background:var(--soft);padding:.75rem;border-radius:6px;overflow:auto;max-height:30rem;white-space:pre-wrap}
.method{display:inline-block;min-width:4.5rem;font-weight:700;color:var(--key)}
.about{opacity:.75;margin-left:.75rem}
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.25rem .5rem .25rem 0}
textarea{width:100%;min-height:9rem;box-sizing:border-box}input{width:14rem;max-width:100%}
button{margin:.5rem 0;padding:.3rem 1rem}h3{font-size:.9rem;margin:1rem 0 .25rem}
"""

# The script inserts all parts of the document as text and not as HTML, which prevents injection.
_SCRIPT = """
"use strict";
const url = document.body.dataset.document;
const base = url.slice(0, url.length - document.body.dataset.path.length);
const operations = document.getElementById("operations");
let spec = {components: {securitySchemes: {assumed: {type: "http", scheme: "Bearer"}}}};
let authenticate = () => {};

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  Object.assign(element, attributes);
  element.append(...children);
  return element;
}

function row(...cells) {
  return make("tr", {}, ...cells.map(cell => make("td", {}, cell)));
}

function resolve(schema) {
  while (schema && schema.$ref) schema = schema.$ref.slice(2).split("/").reduce((part, key) => part[key], spec);
  return schema || {};
}

function typeOf(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  const either = schema.anyOf || schema.oneOf;
  if (either) return either.map(typeOf).join(" | ");
  if (schema.enum) return schema.enum.map(value => JSON.stringify(value)).join(" | ");
  if (schema.type === "array") return "array of " + typeOf(schema.items || {});
  return [schema.type || "any", schema.format ? "(" + schema.format + ")" : ""].join(" ").trim();
}

function example(schema, depth) {
  schema = resolve(schema);
  if (schema.examples) return schema.examples[0];
  if ("default" in schema) return schema.default;
  if (schema.enum) return schema.enum[0];
  const either = schema.anyOf || schema.oneOf;
  if (either) return either.some(one => one.type === "null") ? null : example(either[0], depth);
  if (schema.type === "object") {
    const value = {};
    if (depth > 5) return value;
    for (const [name, part] of Object.entries(schema.properties || {})) value[name] = example(part, depth + 1);
    return value;
  }
  return {array: [], string: "", integer: 0, number: 0, boolean: false}[schema.type] ?? null;
}

function fieldTable(schema) {
  schema = resolve(schema);
  if (!schema.properties) return make("code", {}, typeOf(schema));
  const table = make("table", {});
  for (const [name, part] of Object.entries(schema.properties)) {
    const must = (schema.required || []).includes(name) ? "required" : "";
    const about = part.description || resolve(part).description || "";
    table.append(row(make("code", {}, name), make("code", {}, typeOf(part)), must, about));
  }
  return table;
}

// How a value of the field is sent: one entry for each scheme that a page can send, and one for the header itself.
// The browser sends cookies and client certificates, so these need no field.
function waysToAuthenticate() {
  const ways = new Map();
  for (const scheme of Object.values((spec.components || {}).securitySchemes || {})) {
    if (scheme.type === "http") {
      const prefix = scheme.scheme + " ";
      const has = value => value.toLowerCase().startsWith(prefix.toLowerCase());
      ways.set(scheme.scheme, (value, headers) => { headers.authorization = has(value) ? value : prefix + value; });
    } else if (scheme.type === "apiKey" && scheme.in === "header") {
      ways.set("header " + scheme.name, (value, headers) => { headers[scheme.name] = value; });
    } else if (scheme.type === "apiKey" && scheme.in === "query") {
      ways.set("query " + scheme.name, (value, headers, query) => { query.append(scheme.name, value); });
    } else if (scheme.type === "oauth2" || scheme.type === "openIdConnect") {
      ways.set("Bearer", (value, headers) => { headers.authorization = "Bearer " + value; });
    }
  }
  ways.set("header Authorization", (value, headers) => { headers.authorization = value; });
  return ways;
}

function offerSchemes() {
  const select = document.getElementById("scheme");
  const ways = waysToAuthenticate(), chosen = select.value;
  select.replaceChildren(...[...ways.keys()].map(name => make("option", {value: name}, name)));
  if (ways.has(chosen)) select.value = chosen;
  return (headers, query) => {
    const value = document.getElementById("credentials").value;
    if (value) ways.get(select.value)(value, headers, query);
  };
}

function tryOut(method, path, operation) {
  const inputs = (operation.parameters || []).map(parameter => {
    const schema = parameter.schema || parameter.content["application/json"].schema;
    const input = make("input", {placeholder: typeOf(schema), ariaLabel: parameter.name});
    const name = make("code", {}, parameter.name);
    return {parameter, input, row: row(name, parameter.in, input, parameter.description || "")};
  });
  const body = operation.requestBody && operation.requestBody.content["application/json"];
  const form = operation.requestBody && operation.requestBody.content["multipart/form-data"];
  const fields = Object.entries((form && !body && resolve(form.schema).properties) || {}).map(([name, schema]) => {
    const type = schema.format === "binary" ? "file" : "text";
    const input = make("input", {type, placeholder: typeOf(schema), ariaLabel: name});
    return {name, type, input, row: row(make("code", {}, name), input, schema.description || "")};
  });
  const text = body && JSON.stringify(example(body.schema, 0), null, 2);
  const editor = body && make("textarea", {value: text, spellcheck: false, ariaLabel: "Body"});
  // Screen readers read the answer when it arrives, and the keyboard scrolls it.
  const output = make("pre", {hidden: true, role: "status", ariaLabel: "Answer", tabIndex: 0});
  const button = make("button", {type: "button"}, "Send");
  button.addEventListener("click", async () => {
    let target = path;
    const query = new URLSearchParams();
    for (const {parameter, input} of inputs) {
      if (parameter.in === "path") target = target.replace("{" + parameter.name + "}", encodeURIComponent(input.value));
      else if (input.value !== "") query.append(parameter.name, input.value);
    }
    const headers = {};
    authenticate(headers, query);
    if (editor) headers["content-type"] = "application/json";
    output.hidden = false;
    output.textContent = "…";
    try {
      if (String(query)) target += "?" + query;
      let body = editor ? editor.value : undefined;
      if (fields.length) body = new FormData();
      for (const {name, type, input} of fields) {
        if (type === "text") { if (input.value !== "") body.append(name, input.value); }
        else for (const file of input.files) body.append(name, file);
      }
      const answer = await fetch(base + target, {method: method.toUpperCase(), headers, body});
      let text = await answer.text();
      try { text = JSON.stringify(JSON.parse(text), null, 2); } catch { }
      output.textContent = answer.status + " " + answer.statusText + "\\n\\n" + text;
    } catch (error) {
      output.textContent = String(error);
    }
  });
  const parts = [];
  if (inputs.length) parts.push(make("h3", {}, "Parameters"), make("table", {}, ...inputs.map(each => each.row)));
  if (editor) parts.push(make("h3", {}, "Body"), fieldTable(body.schema), editor);
  if (fields.length) parts.push(make("h3", {}, "Form"), make("table", {}, ...fields.map(each => each.row)));
  return [...parts, button, output];
}

function show(method, path, operation) {
  const box = make("div", {});
  if (operation.description) box.append(make("p", {}, operation.description));
  box.append(...tryOut(method, path, operation), make("h3", {}, "Answers"));
  for (const [status, answer] of Object.entries(operation.responses)) {
    box.append(make("p", {}, make("code", {}, status), " " + answer.description));
    const content = answer.content && answer.content["application/json"];
    if (content) box.append(fieldTable(content.schema));
  }
  const verb = make("span", {className: "method"}, method.toUpperCase());
  const about = make("span", {className: "about"}, operation.summary || "");
  return make("details", {}, make("summary", {}, verb, make("code", {}, path), about), box);
}

function showAll() {
  authenticate = offerSchemes();
  operations.textContent = "";
  document.getElementById("version").textContent = spec.info.version;
  document.getElementById("description").textContent = spec.info.description || "";
  const groups = new Map();
  for (const [path, methods] of Object.entries(spec.paths))
    for (const [method, operation] of Object.entries(methods)) {
      const group = (operation.tags || [""])[0];
      if (!groups.has(group)) groups.set(group, []);
      groups.get(group).push(show(method, path, operation));
    }
  for (const [group, boxes] of groups) operations.append(make("section", {}, make("h2", {}, group), ...boxes));
}

// A server may show the document only to callers that it admits. The page then asks for credentials.
async function load() {
  const headers = {}, query = new URLSearchParams();
  authenticate(headers, query);
  try {
    const answer = await fetch(String(query) ? url + "?" + query : url, {headers});
    if (answer.status === 401 || answer.status === 403) {
      authenticate = offerSchemes();
      const button = make("button", {type: "button"}, "Load");
      button.addEventListener("click", load);
      const text = "The server shows the document only to callers with credentials. Enter them above.";
      operations.replaceChildren(make("p", {}, text), button);
      return;
    }
    if (!answer.ok) throw new Error("the answer was " + answer.status);
    spec = await answer.json();
    showAll();
  } catch (error) {
    operations.textContent = "The document could not be loaded: " + error;
  }
}

load();
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body data-document="{url}" data-path="{path}">
<header>
<h1>{title} <small id="version"></small></h1>
<p id="description"></p>
<p><label for="credentials">Credentials</label> <select id="scheme" aria-label="Scheme"></select>
<input id="credentials" autocomplete="off">
<a href="{url}">OpenAPI document</a></p>
</header>
<main id="operations"></main>
<noscript>This page needs JavaScript. The OpenAPI document is at <a href="{url}">{url}</a>.</noscript>
<script>{script}</script>
</body>
</html>
"""


def _digest(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


# The policy allows only this file's own script and style, so that an injection could not load other code.
_POLICY = (
    f"default-src 'none'; script-src {_digest(_SCRIPT)}; style-src {_digest(_STYLE)}; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def docs_page(title: str, root_path: str, openapi_path: str) -> Response:
    """Return the page for the OpenAPI document at `openapi_path` below `root_path`."""
    page = _PAGE.format(
        title=html.escape(title),
        url=html.escape(root_path + openapi_path),
        path=html.escape(openapi_path),
        style=_STYLE,
        script=_SCRIPT,
    )
    return Response(page, headers={"content-security-policy": _POLICY}, content_type="text/html; charset=utf-8")
