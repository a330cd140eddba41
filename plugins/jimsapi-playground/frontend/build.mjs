// Bundles the page into the folder `static` of the Python package.

import { copyFile, mkdir, rm } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const target = here("../jimsapi_playground/static/");

await rm(target, { recursive: true, force: true });
await mkdir(target, { recursive: true });
await build({
  absWorkingDir: here("."),
  entryPoints: { app: "src/main.jsx" },
  outdir: target,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  jsx: "automatic",
  jsxImportSource: "preact",
  logLevel: "warning",
});
for (const name of ["index.html", "icon.svg"]) await copyFile(here(`src/${name}`), `${target}${name}`);
await copyFile(here("node_modules/preact/LICENSE"), `${target}preact-LICENSE.txt`);
