// node in_node.mjs REQUEST.json: { model, dtype or null, out, photos }, see sam_model.mjs. For photo i and prompt j, `out`
// gets i-j.masks, and answers.json.

import { readFile, writeFile } from "node:fs/promises";
import { dirname, basename } from "node:path";
import * as transformers from "@huggingface/transformers";
import { segment } from "./sam_model.mjs";

const { model, dtype, out, photos } = JSON.parse(await readFile(process.argv[2], "utf8"));
transformers.env.allowRemoteModels = false;
transformers.env.localModelPath = dirname(model);
const keep = (i, j, masks) => writeFile(`${out}/${i}-${j}.masks`, Buffer.from(masks.buffer));
const answers = await segment(transformers, basename(model), dtype === null ? {} : { dtype }, photos, keep);
await writeFile(`${out}/answers.json`, JSON.stringify(answers));
