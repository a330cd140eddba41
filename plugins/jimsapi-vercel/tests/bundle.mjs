// Makes one file of a page and the packages that it imports: {page, bundle}.

import { build } from "esbuild";

const { page, bundle } = JSON.parse(process.argv[2]);
const define = { "process.env.NODE_ENV": '"production"' };
await build({ entryPoints: [page], outfile: bundle, bundle: true, format: "esm", define, logLevel: "error" });
console.log("{}");
