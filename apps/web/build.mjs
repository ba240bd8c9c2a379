// Builds dist/: the package, its worker and engines, and the demo page beside them. `node build.mjs test` builds build/ for node --test.
import { cp, mkdir, rm } from "node:fs/promises";
import { build } from "esbuild";

const common = { bundle: true, target: "es2022", sourcemap: "linked", logLevel: "warning" };

if (process.argv[2] === "test") {
  await rm("build", { recursive: true, force: true });
  await build({ ...common, entryPoints: ["test/vectors.test.ts", "test/segmenter.test.ts"], outdir: "build", format: "esm", platform: "node" });
} else {
  await rm("dist", { recursive: true, force: true });
  await build({ ...common, entryPoints: { mobilesam: "src/index.ts" }, outdir: "dist", format: "esm" });
  // A classic script: LiteRT.js loads its own with importScripts.
  await build({
    ...common,
    entryPoints: { "mobilesam-worker": "src/worker.ts" },
    outdir: "dist",
    format: "iife",
    minify: true,
    conditions: ["onnxruntime-web-use-extern-wasm"],
    external: ["module"],
    define: { "import.meta.url": "self.location.href" },
  });
  await build({ ...common, entryPoints: { demo: "demo/main.ts" }, outdir: "dist", format: "esm", minify: true, external: ["./mobilesam.js"] });
  for (const page of ["index.html", "style.css"]) await cp(`demo/${page}`, `dist/${page}`);
  await mkdir("dist/engines/onnxruntime", { recursive: true });
  for (const kind of ["", "_compat", "_threaded"]) {
    for (const ending of ["js", "wasm"]) {
      const file = `litert_wasm${kind}_internal.${ending}`;
      await cp(`node_modules/@litertjs/core/wasm/${file}`, `dist/engines/litert/${file}`);
    }
  }
  for (const ending of ["mjs", "wasm"]) {
    const file = `ort-wasm-simd-threaded.${ending}`;
    await cp(`node_modules/onnxruntime-web/dist/${file}`, `dist/engines/onnxruntime/${file}`);
  }
}
